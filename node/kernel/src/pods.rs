//! A pod's place on the network: namespace, veth pair, addresses, routes, programs, map entries.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::PathBuf,
    sync::Mutex,
};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use fairlead_abi::{
    Addr16, DropReason, names,
    pod::{DropKey, InterfaceValue, NearPod, PodCounters, PodValue},
};
use tokio::sync::watch;

use crate::{
    KernelError, Uplink,
    bpf::{
        pins::Pins,
        programs::{SharedPrograms, open_pinned},
    },
    dataplane::ProgramSummary,
    net::{Link, Namespace, Netlink, netlink::VethPair, sysctl},
    tables::ignore_absent,
};

/// A pod's interface inside its namespace.
pub const POD_INTERFACE: &str = "eth0";
/// A pod's IPv4 gateway; link local (RFC 3927), the same for every pod, held by nobody.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// A pod's IPv6 gateway.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What a pod shall have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodSpec {
    /// Where its network namespace is mounted.
    pub netns: PathBuf,
    /// Name of the host side of its veth pair, at most 15 bytes.
    pub interface: String,
    /// Addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Its slot in the counters.
    pub slot: u32,
}

/// Makes and removes pods' places.
pub struct Pods {
    netlink: Netlink,
    uplink: watch::Receiver<Uplink>,
    inner: Mutex<Inner>,
}

struct Inner {
    programs: SharedPrograms,
    /// Whether the link programs may hand packets to pods past the host's stack.
    shortcuts: bool,
    pods: HashMap<MapData, Addr16, PodValue>,
    near: Array<MapData, NearPod>,
    interfaces: HashMap<MapData, u32, InterfaceValue>,
    /// By netns cookie.
    namespaces: HashMap<MapData, u64, InterfaceValue>,
    counters: PerCpuArray<MapData, PodCounters>,
    drops: PerCpuHashMap<MapData, DropKey, u64>,
}

impl Pods {
    pub(crate) fn new(
        programs: SharedPrograms,
        pins: &Pins,
        netlink: Netlink,
        uplink: watch::Receiver<Uplink>,
        shortcuts: bool,
    ) -> Result<Self, KernelError> {
        let mut inner = Inner {
            shortcuts,
            pods: open_pinned(pins, names::PODS)?,
            near: open_pinned(pins, names::NEAR_PODS)?,
            interfaces: open_pinned(pins, names::INTERFACES)?,
            namespaces: open_pinned(pins, names::POD_NETNS)?,
            counters: open_pinned(pins, names::POD_COUNTERS)?,
            drops: open_pinned(pins, names::DROPS)?,
            programs,
        };
        inner.forget_strays()?;
        Ok(Self { netlink, uplink, inner: Mutex::new(inner) })
    }

    /// Makes everything the pod shall have, or completes it; a pod that has it keeps all its connections.
    ///
    /// # Errors
    /// A step fails; what was made stays and is completed by the next call or removed by [`Self::detach`].
    pub async fn attach(&self, spec: &PodSpec) -> Result<(), KernelError> {
        let namespace = Namespace::at(&spec.netns);
        if namespace.create()? {
            // A pod of that name died with its namespace; its interface, if any, leads nowhere.
            self.netlink.delete_link(&spec.interface).await?;
        }
        let (host, pod) = match self.existing_pair(&namespace, spec).await? {
            Some(pair) => pair,
            None => self.new_pair(&namespace, spec).await?,
        };
        let cookie = namespace.cookie()?;
        self.lock().admit(spec, &host, cookie)?;
        configure_pod(&namespace, spec, pod.index, host.mac)?;
        sysctl::make_pod_gateway(&spec.interface)?;
        self.netlink.set_up(host.index).await?;
        for address in &spec.addresses {
            self.netlink.add_neighbour(host.index, *address, pod.mac).await?;
            self.netlink.add_host_route(host.index, *address).await?;
        }
        self.lock().publish(spec, &host, &pod)
    }

    /// From now on the link programs hand packets to pods past the host's stack. Concerns pods that are attached, or
    /// attached again, from here on.
    pub fn use_shortcuts(&self) {
        self.lock().shortcuts = true;
    }

    /// Whether the pod has its namespace and its interface, so that nothing but programs needs a look.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn is_attached(&self, spec: &PodSpec) -> Result<bool, KernelError> {
        let namespace = Namespace::at(&spec.netns);
        Ok(namespace.exists() && self.existing_pair(&namespace, spec).await?.is_some())
    }

    /// Takes back whatever of it exists.
    ///
    /// # Errors
    /// A step fails; call again.
    pub async fn detach(&self, spec: &PodSpec) -> Result<(), KernelError> {
        self.lock().withdraw(spec)?;
        self.netlink.delete_link(&spec.interface).await?;
        Namespace::at(&spec.netns).remove()
    }

    /// Names of the interfaces here that begin with `prefix`.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn interfaces(&self, prefix: &str) -> Result<Vec<String>, KernelError> {
        let names = self.netlink.link_names().await?;
        Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect())
    }

    /// Deletes an interface that belongs to no pod.
    ///
    /// # Errors
    /// The request fails.
    pub async fn delete_interface(&self, name: &str) -> Result<(), KernelError> {
        self.lock().programs.lock().detach_interface(name)?;
        self.netlink.delete_link(name).await
    }

    /// What the kernel says about the programs.
    pub fn programs(&self) -> Vec<ProgramSummary> {
        let inner = self.lock();
        let programs = inner.programs.lock();
        programs.info().map(|(name, info)| ProgramSummary::new(name, &info)).collect()
    }

    async fn existing_pair(
        &self,
        namespace: &Namespace,
        spec: &PodSpec,
    ) -> Result<Option<(Link, Link)>, KernelError> {
        let Some(host) = self.netlink.link(&spec.interface).await? else { return Ok(None) };
        let pod = namespace.enter_async(async || Netlink::connect()?.link(POD_INTERFACE).await)??;
        Ok(pod.filter(|pod| pod.peer == Some(host.index)).map(|pod| (host, pod)))
    }

    async fn new_pair(&self, namespace: &Namespace, spec: &PodSpec) -> Result<(Link, Link), KernelError> {
        self.lock().reset(spec.slot)?;
        self.netlink.delete_link(&spec.interface).await?;
        namespace.enter(sysctl::make_pod)??;
        let file = namespace.open()?;
        let pair = VethPair {
            name: &spec.interface,
            mac: mac(HOST_MAC, spec),
            peer_name: POD_INTERFACE,
            peer_mac: mac(POD_MAC, spec),
            peer_namespace: file.as_fd(),
            mtu: self.uplink.borrow().mtu,
        };
        self.netlink.add_veth(pair).await?;
        let made = self.existing_pair(namespace, spec).await?;
        made.ok_or_else(|| KernelError::NoInterface { name: spec.interface.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    /// Says whose interface it is and attaches the programs, before a packet can pass.
    fn admit(&mut self, spec: &PodSpec, host: &Link, cookie: Option<u64>) -> Result<(), KernelError> {
        let address = |v4: bool| {
            let found = spec.addresses.iter().find(|address| address.is_ipv4() == v4);
            found.map_or(Addr16::UNSPECIFIED, |address| Addr16::from(*address))
        };
        let value = InterfaceValue { v4: address(true), v6: address(false), slot: spec.slot };
        let put = self.interfaces.insert(host.index, value, 0);
        put.map_err(KernelError::map(names::INTERFACES.name, "writing"))?;
        // Without it the sockets of the pod are known by their addresses alone.
        if let Some(cookie) = cookie {
            let put = self.namespaces.insert(cookie, value, 0);
            put.map_err(KernelError::map(names::POD_NETNS.name, "writing"))?;
        }
        self.programs.lock().attach_pod(&spec.interface, host.index)
    }

    /// Makes the pod's addresses known to the link programs.
    fn publish(&mut self, spec: &PodSpec, host: &Link, pod: &Link) -> Result<(), KernelError> {
        if !self.shortcuts {
            return Ok(());
        }
        let value = PodValue { ifindex: host.index, slot: spec.slot, mac: pod.mac, host_mac: host.mac };
        for address in spec.addresses.iter().map(|address| Addr16::from(*address)) {
            let put = self.pods.insert(address, value, 0);
            put.map_err(KernelError::map(names::PODS.name, "writing"))?;
            self.keep_near(address, value)?;
        }
        Ok(())
    }

    /// Puts a pod to where it is found at once, unless another one is there. An entry is not written in one piece, so its
    /// address comes last: who reads meanwhile asks `PODS`.
    fn keep_near(&mut self, addr: Addr16, pod: PodValue) -> Result<(), KernelError> {
        let index = NearPod::index(&addr);
        let place = NearPod { addr, pod };
        let present = self.near.get(&index, 0).map_err(KernelError::map(names::NEAR_PODS.name, "reading"))?;
        if present == place || (present.addr != addr && present.addr != Addr16::UNSPECIFIED) {
            return Ok(());
        }
        for entry in [NearPod::default(), NearPod { addr: Addr16::UNSPECIFIED, pod }, place] {
            let put = self.near.set(index, entry, 0);
            put.map_err(KernelError::map(names::NEAR_PODS.name, "writing"))?;
        }
        Ok(())
    }

    /// A former version of this program may have left pods, and another one, which does not know of this map, may have taken
    /// them out of `PODS` since.
    fn forget_strays(&mut self) -> Result<(), KernelError> {
        let entries: Result<Vec<NearPod>, _> = self.near.iter().collect();
        let entries = entries.map_err(KernelError::map(names::NEAR_PODS.name, "reading"))?;
        for near in entries.iter().filter(|near| near.addr != Addr16::UNSPECIFIED) {
            match self.pods.get(&near.addr, 0) {
                Ok(pod) if pod == near.pod => {}
                Ok(_) | Err(MapError::KeyNotFound) => self.forget_near(&near.addr)?,
                Err(error) => return Err(KernelError::map(names::PODS.name, "reading")(error)),
            }
        }
        Ok(())
    }

    fn forget_near(&mut self, addr: &Addr16) -> Result<(), KernelError> {
        let index = NearPod::index(addr);
        let present = self.near.get(&index, 0).map_err(KernelError::map(names::NEAR_PODS.name, "reading"))?;
        if present.addr != *addr {
            return Ok(());
        }
        let put = self.near.set(index, NearPod::default(), 0);
        put.map_err(KernelError::map(names::NEAR_PODS.name, "writing"))
    }

    fn withdraw(&mut self, spec: &PodSpec) -> Result<(), KernelError> {
        for address in spec.addresses.iter().map(|address| Addr16::from(*address)) {
            self.forget_near(&address)?;
            ignore_absent(self.pods.remove(&address))
                .map_err(KernelError::map(names::PODS.name, "deleting from"))?;
        }
        self.programs.lock().detach_interface(&spec.interface)?;
        self.forget(spec.slot)
    }

    /// Deletes the entries of a slot, also those of an interface or a namespace that is gone.
    fn forget(&mut self, slot: u32) -> Result<(), KernelError> {
        remove_slot(&mut self.interfaces, slot)
            .map_err(KernelError::map(names::INTERFACES.name, "cleaning"))?;
        remove_slot(&mut self.namespaces, slot).map_err(KernelError::map(names::POD_NETNS.name, "cleaning"))
    }

    /// A slot starts at zero with each pod, and nothing else has it.
    fn reset(&mut self, slot: u32) -> Result<(), KernelError> {
        self.forget(slot)?;
        let cpus =
            self.counters.get(&slot, 0).map_err(KernelError::map(names::POD_COUNTERS.name, "reading"))?;
        let zeros = vec![PodCounters::default(); cpus.len()];
        let zeros = PerCpuValues::try_from(zeros).expect("as many values as the map has CPUs");
        self.counters.set(slot, zeros, 0).map_err(KernelError::map(names::POD_COUNTERS.name, "writing"))?;
        for reason in DropReason::ALL {
            ignore_absent(self.drops.remove(&DropKey { slot, reason: *reason as u32 }))
                .map_err(KernelError::map(names::DROPS.name, "deleting from"))?;
        }
        Ok(())
    }
}

fn remove_slot<K: aya::Pod>(
    map: &mut HashMap<MapData, K, InterfaceValue>,
    slot: u32,
) -> Result<(), aya::maps::MapError> {
    let entries: Result<Vec<_>, _> = map.iter().collect();
    let keys = entries?.into_iter().filter(|(_, value)| value.slot == slot).map(|(key, _)| key);
    keys.into_iter().try_for_each(|key| ignore_absent(map.remove(&key)))
}

fn configure_pod(
    namespace: &Namespace,
    spec: &PodSpec,
    index: u32,
    gateway: [u8; 6],
) -> Result<(), KernelError> {
    namespace.enter_async(async || {
        let netlink = Netlink::connect()?;
        netlink.set_up(netlink.require_link("lo").await?.index).await?;
        for address in &spec.addresses {
            let length = if address.is_ipv4() { 32 } else { 128 };
            netlink.add_address(index, *address, length).await?;
        }
        netlink.set_up(index).await?;
        for address in &spec.addresses {
            let via = if address.is_ipv4() { IpAddr::V4(GATEWAY_V4) } else { IpAddr::V6(GATEWAY_V6) };
            netlink.add_neighbour(index, via, gateway).await?;
            netlink.add_default_route(index, via).await?;
        }
        Ok(())
    })?
}

/// First bytes of the link-layer addresses of the two ends; locally administered, unicast.
const POD_MAC: [u8; 2] = [0x0a, 0x58];
const HOST_MAC: [u8; 2] = [0x0a, 0x59];

/// A link-layer address that follows from the pod's first address. One that is set explicitly is also left alone by
/// udev's `MACAddressPolicy`.
fn mac(start: [u8; 2], spec: &PodSpec) -> [u8; 6] {
    let last: [u8; 4] = match spec.addresses.first() {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let o = v6.octets();
            [o[12], o[13], o[14], o[15]]
        }
        None => spec.slot.to_be_bytes(),
    };
    [start[0], start[1], last[0], last[1], last[2], last[3]]
}
