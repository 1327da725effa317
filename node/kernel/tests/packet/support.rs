//! What the tests load and make, and how it goes away.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::Program,
};
use fairlead_abi::{
    Addr16, DropReason,
    event::FlowEvent,
    names::{self, MapSpec, globals},
    pod::{DropKey, PodCounters},
};
use fairlead_kernel::{
    bpf::load::load,
    features::{Helpers, raise_memory_limit},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use zerocopy::FromBytes;

/// Interface that the tests' routes lead to.
pub(crate) const UPLINK: u32 = 3;

/// The object in the kernel, its maps pinned in a bpffs of its own.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    _bpffs: Bpffs,
}

impl Loaded {
    /// Loads every program for a node whose uplink is [`UPLINK`].
    pub(crate) fn new() -> Self {
        Self::with_globals(UPLINK, true)
    }

    /// Loads every program for a node whose host is the network namespace with this cookie, and which translates for no
    /// other.
    pub(crate) fn of_host(netns: u64) -> Self {
        Self::load(&[(globals::UPLINK_IFINDEX, UPLINK), (globals::SOCKETS_OF_HOST_ONLY, 1)], netns)
    }

    /// Loads every program. Each call makes its own maps.
    pub(crate) fn with_globals(uplink: u32, flow_events: bool) -> Self {
        Self::load(&[(globals::UPLINK_IFINDEX, uplink), (globals::FLOW_EVENTS, u32::from(flow_events))], 0)
    }

    /// Loads every program for a node with these interfaces.
    pub(crate) fn of_node(uplink: u32, overlay: u32, forwarding: u32) -> Self {
        let globals = [
            (globals::UPLINK_IFINDEX, uplink),
            (globals::OVERLAY_IFINDEX, overlay),
            (globals::FORWARDING, forwarding),
        ];
        Self::load(&globals, 0)
    }

    fn load(globals: &[(&str, u32)], host: u64) -> Self {
        let bpffs = Bpffs::mount();
        let path = object_path();
        let object = fs::read(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask build`", path.display()));
        raise_memory_limit();
        let helpers = Helpers::of_this_kernel().expect("the kernel answers what it has");
        let mut loader = EbpfLoader::new();
        helpers.switch(&mut loader);
        for (name, value) in globals {
            loader.override_global(name, value, true);
        }
        loader.override_global(globals::HOST_NETNS, &host, true);
        for map in names::MAPS {
            loader.map_pin_path(map.name, bpffs.path.join(map.name));
        }
        let mut ebpf = loader.load(&object).expect("the object loads; it needs root");
        for (name, program) in ebpf.programs_mut() {
            let loaded = load(program);
            loaded.unwrap_or_else(|error| panic!("the verifier refuses {name}: {error}"));
        }
        Self { ebpf, _bpffs: bpffs }
    }

    pub(crate) fn hash<K: Pod, V: Pod>(&mut self, map: MapSpec) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(map.name).expect(map.name)).expect(map.name)
    }

    pub(crate) fn array<V: Pod>(&mut self, map: MapSpec) -> Array<&mut MapData, V> {
        Array::try_from(self.ebpf.map_mut(map.name).expect(map.name)).expect(map.name)
    }

    /// The counters of a pod over all CPUs.
    pub(crate) fn counters(&self, slot: u32) -> PodCounters {
        let map = self.ebpf.map(names::POD_COUNTERS.name).expect("the object has it");
        let map = PerCpuArray::<_, PodCounters>::try_from(map).expect("a per-CPU array");
        let per_cpu = map.get(&slot, 0).expect("the slot is within the array");
        let mut sum = PodCounters::default();
        for cpu in per_cpu.iter() {
            sum.rx_packets += cpu.rx_packets;
            sum.rx_bytes += cpu.rx_bytes;
            sum.tx_packets += cpu.tx_packets;
            sum.tx_bytes += cpu.tx_bytes;
            sum.connections_opened += cpu.connections_opened;
            sum.connections_accepted += cpu.connections_accepted;
            sum.connections_refused += cpu.connections_refused;
            sum.retransmits += cpu.retransmits;
        }
        sum
    }

    /// How many packets the driver's program has sent on.
    pub(crate) fn carried(&self) -> u64 {
        let map = self.ebpf.map(names::CARRIED.name).expect("the object has it");
        let map = PerCpuArray::<_, u64>::try_from(map).expect("a per-CPU array");
        map.get(&0, 0).expect("it has one entry").iter().sum()
    }

    /// Every drop that was counted: slot, reason and how often.
    pub(crate) fn drops(&self) -> Vec<(u32, u32, u64)> {
        let map = self.ebpf.map(names::DROPS.name).expect("the object has it");
        let map = PerCpuHashMap::<_, DropKey, u64>::try_from(map).expect("a per-CPU hash");
        let entries = map.iter().map(|entry| entry.expect("nothing changes the map meanwhile"));
        entries.map(|(key, counts)| (key.slot, key.reason, counts.iter().sum())).collect()
    }

    pub(crate) fn drop_count(&self, slot: u32, reason: DropReason) -> u64 {
        self.drops().iter().filter(|row| (row.0, row.1) == (slot, reason as u32)).map(|row| row.2).sum()
    }

    /// The records that were written since the last call.
    pub(crate) fn events(&mut self) -> Vec<FlowEvent> {
        let map = self.ebpf.map_mut(names::EVENTS.name).expect("the object has it");
        let mut ring = RingBuf::try_from(map).expect("a ring buffer");
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(FlowEvent::read_from_bytes(&item).expect("a record has the layout of the contract"));
        }
        events
    }
}

/// Where `cargo xtask build` leaves the object.
fn object_path() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/fairlead.bpf.o");
    std::env::var_os("FAIRLEAD_BPF_OBJECT").map_or_else(default, PathBuf::from)
}

/// A name that no other test on this machine has.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("fairlead-packet-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    fn mount() -> Self {
        let path = std::env::temp_dir().join(unique("bpffs"));
        fs::create_dir(&path).expect("the temporary directory is writable");
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mounting bpffs needs root");
        Self { path }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // A test that fails has said so already; what cannot be removed here is an empty directory.
        let _unmounted = umount2(&self.path, MntFlags::MNT_DETACH);
        let _removed = fs::remove_dir(&self.path);
    }
}

/// This process in a cgroup of its own, until the value is dropped.
pub(crate) struct Cgroup {
    path: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup and moves this process into it: sockets made from now on belong to it.
    pub(crate) fn enter() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("procfs is mounted");
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mount.into_iter().find(|fields| fields[2] == "cgroup2").expect("a cgroup2 mount");
        let root = PathBuf::from(mount[1]);
        let own = fs::read_to_string("/proc/self/cgroup").expect("procfs is mounted");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup v2");
        let before = root.join(own);
        let path = root.join(unique("cgroup"));
        fs::create_dir(&path).expect("making a cgroup needs root");
        let cgroup = Self { path, before };
        cgroup.move_to(&cgroup.path);
        cgroup
    }

    /// Attaches every cgroup program; they are detached when `loaded` goes.
    pub(crate) fn attach(&self, loaded: &mut Loaded) {
        let directory = fs::File::open(&self.path).expect("it was made in `enter`");
        for (name, program) in loaded.ebpf.programs_mut() {
            use aya::programs::CgroupAttachMode::Single;
            let attached = match program {
                Program::CgroupSockAddr(program) => program.attach(directory.as_fd(), Single).map(drop),
                Program::CgroupSock(program) => program.attach(directory.as_fd(), Single).map(drop),
                Program::SockOps(program) => program.attach(directory.as_fd(), Single).map(drop),
                _ => Ok(()),
            };
            attached.unwrap_or_else(|error| panic!("cannot attach {name}: {error}"));
        }
    }

    fn move_to(&self, path: &Path) {
        let moved = fs::write(path.join("cgroup.procs"), std::process::id().to_string());
        moved.unwrap_or_else(|error| panic!("cannot move into {}: {error}", path.display()));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.move_to(&self.before.clone());
        let _removed = fs::remove_dir(&self.path);
    }
}

/// A named network namespace, removed when the value is dropped.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    pub(crate) fn new(what: &str) -> Self {
        let name = unique(what);
        ip(&format!("netns add {name}"));
        let netns = Self { name };
        netns.run(|| ip("link set lo up"));
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `scenario` on a thread in this namespace.
    pub(crate) fn run<T: Send>(&self, scenario: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            let netns = fs::File::open(format!("/run/netns/{}", self.name)).expect("made in `new`");
            setns(netns, CloneFlags::CLONE_NEWNET).expect("entering a network namespace needs root");
            scenario()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // What cannot be removed here is reported by the test that finds the name taken.
        let _removed = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Runs `scenario` on a thread in a network namespace of its own, with loopback up and these addresses on it.
pub(crate) fn in_netns<T: Send>(addresses: &[&str], scenario: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        ip("link set lo up");
        for address in addresses {
            ip(&format!("address add {address} dev lo nodad"));
        }
        addresses.iter().for_each(|address| wait_for_route(address));
        scenario()
    })
}

/// Waits until the kernel's worker has installed the route of an IPv6 address.
fn wait_for_route(address: &str) {
    let (address, _) = address.split_once('/').expect("an address with its prefix length");
    let address: IpAddr = address.parse().expect("the test has valid addresses");
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).expect("there is a free port");
    let started = Instant::now();
    while let Err(error) = socket.connect((address, 9)) {
        assert!(started.elapsed() < Duration::from_secs(5), "no route to {address}: {error}");
        std::thread::yield_now();
    }
}

fn on_a_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs `ip` in the network namespace of this thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lets the kernel complete the checksums of what leaves by an interface in the network namespace of this thread, as if a
/// wire were behind it.
#[expect(unsafe_code, reason = "the ioctl has no safe interface")]
pub(crate) fn fill_in_checksums(interface: &str) {
    /// `ETHTOOL_STXCSUM` of `linux/ethtool.h`.
    const TRANSMIT_CHECKSUM_OFFLOAD: u32 = 0x17;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        value: *mut Value,
        _rest: [u64; 2],
    }
    let mut value = Value { command: TRANSMIT_CHECKSUM_OFFLOAD, data: 0 };
    let mut request = Request { name: [0; _], value: &raw mut value, _rest: [0; 2] };
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    let socket = UdpSocket::bind("0.0.0.0:0").expect("there is a free port");
    // SAFETY: `request` is an `ifreq` (its union is 24 bytes) whose pointer is to what the command reads.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    assert_eq!(done, 0, "{interface}: {}", std::io::Error::last_os_error());
}

/// An address of the contract.
pub(crate) fn addr(text: &str) -> Addr16 {
    text.parse::<IpAddr>().expect("the test has valid addresses").into()
}

/// Sends and checks four bytes each way.
pub(crate) fn exchange(client: &mut (impl Read + Write), server: &mut (impl Read + Write)) {
    let mut buffer = [0; 4];
    client.write_all(b"ping").expect("the connection is up");
    server.read_exact(&mut buffer).expect("the client has written");
    server.write_all(b"pong").expect("the connection is up");
    client.read_exact(&mut buffer).expect("the server has written");
    assert_eq!(&buffer, b"pong");
}
