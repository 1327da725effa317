//! `fairlead proxy` against an API server, with nothing else of Fairlead on the machine: endpoints are plain processes
//! that no kubelet knows. Needs root, kubectl and the eBPF object.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    io::{ErrorKind, Write as _},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use fairlead_testkit::{
    InCgroup, TwoNodes,
    cgroup::mount_point,
    echo::{self, ask, connect, serve},
    eventually,
    topology::UPLINK,
};
use serde_json::{Value, json};

const SERVICE: [&str; 2] = ["10.96.0.20", "fd00:96::20"];

/// A process of ours, killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node whose only daemons are an API server and the proxy, beside a machine with servers.
struct Machine {
    topology: TwoNodes,
    directory: tempfile::TempDir,
    /// Name of the cgroup and of the pin directory.
    id: String,
}

impl Machine {
    fn new() -> Self {
        let id = format!("fltest-proxy-{}", std::process::id());
        Self { topology: TwoNodes::new(), directory: tempfile::tempdir().unwrap(), id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.path("server/admin.kubeconfig")
    }

    fn bpffs(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.id)
    }

    /// Removes what a proxy left in the kernel, as [`Self::proxy_with`] started it.
    fn clean_up(&self) -> Output {
        let mut command = self.fairlead(&["proxy", "--cleanup", "--node", "a", "--state-dir"]);
        command.arg(self.path("state")).arg("--bpffs").arg(self.bpffs());
        self.topology.a.netns.run(|| command.output()).unwrap()
    }

    fn fairlead(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a daemon on the node.
    fn daemon(&self, name: &str, command: &mut Command) -> Process {
        let log = fs::File::options().create(true).append(true).open(self.path(name)).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        Process(self.topology.a.netns.run(|| command.spawn()).unwrap())
    }

    fn server(&self) -> Process {
        let address = self.topology.a.addresses[0];
        let mut command = self.fairlead(&["server", "--feed-listen", "127.0.0.1:6444"]);
        command.arg("--state-dir").arg(self.path("server"));
        command.arg(format!("--listen={}", SocketAddr::new(address, 6443)));
        command.arg(format!("--advertise-address={address}"));
        self.daemon("server.log", &mut command)
    }

    fn proxy(&self) -> Process {
        self.proxy_with(&[])
    }

    fn proxy_with(&self, options: &[&str]) -> Process {
        let mut command = self.fairlead(&["proxy", "--node", "a", "--uplink", UPLINK, "--cgroup", &self.id]);
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--bpffs").arg(self.bpffs());
        for address in &self.topology.a.addresses {
            command.arg("--node-ip").arg(address.to_string());
        }
        command.arg("--run-dir").arg(self.path("run/nodes/a")).arg("--state-dir").arg(self.path("state"));
        self.daemon("proxy.log", command.args(options))
    }

    fn kubectl(&self, arguments: &[&str], input: Option<&Value>) -> Output {
        let mut command = Command::new("kubectl");
        command.arg(format!("--kubeconfig={}", self.kubeconfig().display())).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.topology.a.netns.run(|| command.spawn()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        input.inspect(|object| stdin.write_all(object.to_string().as_bytes()).unwrap());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn must(&self, arguments: &[&str], input: Option<&Value>) {
        let output = self.kubectl(arguments, input);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What a command of ours prints.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.fairlead(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fairlead {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Who answers at the service's addresses.
    fn answers(&self) -> Vec<Result<String, ErrorKind>> {
        let ask_at = |address: &str| {
            let address = SocketAddr::new(address.parse().unwrap(), 80);
            connect(address).and_then(|mut stream| ask(&mut stream)).map_err(|error| error.kind())
        };
        self.topology.a.netns.run(|| SERVICE.map(ask_at).to_vec())
    }

    fn health(&self, path: &str) -> String {
        self.topology.a.netns.run(|| {
            let Ok(mut stream) = std::net::TcpStream::connect("127.0.0.1:10256") else {
                return String::new();
            };
            let mut answer = String::new();
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
            std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
            answer
        })
    }

    fn logs(&self) -> String {
        fs::read_to_string(self.path("proxy.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.clean_up();
        let _ = fs::remove_dir(mount_point().join(&self.id));
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// True when the machine can run this; a machine that must (`CI=true`) fails instead of skipping.
fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if root && fairlead_kernel::bpf::object::embedded().is_ok() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root and the eBPF object (cargo xtask build)");
    eprintln!("skipped: this test needs root and the eBPF object (cargo xtask build)");
    false
}

/// A service of both families without a selector, and the node itself.
fn objects(machine: &Machine) -> Vec<Value> {
    let ports = json!([
        { "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": echo::TCP_PORT },
        { "name": "udp", "protocol": "UDP", "port": 53, "targetPort": echo::UDP_PORT },
    ]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "clusterIPs": SERVICE, "clusterIP": SERVICE[0], "ipFamilyPolicy": "RequireDualStack",
                  "ipFamilies": ["IPv4", "IPv6"], "ports": ports },
    });
    let slices = machine.topology.b.addresses.iter().map(|address| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("web-{}", family.to_lowercase()),
                          "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": family,
            "ports": [
                { "name": "tcp", "protocol": "TCP", "port": echo::TCP_PORT },
                { "name": "udp", "protocol": "UDP", "port": echo::UDP_PORT },
            ],
            "endpoints": [{ "addresses": [address.to_string()], "conditions": { "ready": true } }],
        })
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "a" } });
    [node, service].into_iter().chain(slices).chain(refusing(machine)).collect()
}

/// Services that refuse somebody: all but the first have a backend on the machine with servers.
const REFUSING: [(&str, &str); 4] = [
    ("empty", r#"{"clusterIP": "10.96.0.30"}"#),
    ("inside", r#"{"clusterIP": "10.96.0.31", "internalTrafficPolicy": "Local"}"#),
    ("edge", r#"{"clusterIP": "10.96.0.32", "type": "LoadBalancer", "externalTrafficPolicy": "Local"}"#),
    (
        "ranged",
        r#"{"clusterIP": "10.96.0.33", "type": "LoadBalancer", "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["198.51.100.0/24"]}"#,
    ),
];

/// What the services with a load balancer have at it.
const BALANCED: [(&str, &str, u16); 2] = [("edge", "203.0.113.7", 30_080), ("ranged", "203.0.113.8", 30_081)];

fn refusing(machine: &Machine) -> Vec<Value> {
    let backend = machine.topology.b.addresses.iter().find(|address| address.is_ipv4()).unwrap();
    let object = |(name, spec): &(&str, &str)| {
        let mut spec: Value = serde_json::from_str(spec).unwrap();
        spec["ports"] = json!([{ "name": "tcp", "port": 80, "targetPort": echo::TCP_PORT }]);
        if let Some((_, _, node_port)) = BALANCED.iter().find(|(balanced, _, _)| balanced == name) {
            spec["ports"][0]["nodePort"] = json!(node_port);
        }
        let service =
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": [{ "name": "tcp", "port": echo::TCP_PORT }],
            "endpoints": [{ "addresses": [backend.to_string()], "conditions": { "ready": true } }],
        });
        if *name == "empty" { vec![service] } else { vec![service, slice] }
    };
    REFUSING.iter().flat_map(object).collect()
}

/// What a cloud's controller does: it says where the load balancer is.
fn balance(machine: &Machine) {
    for (name, address, _) in BALANCED {
        let found = machine.kubectl(&["get", "service", name, "-o", "json"], None);
        let mut service: Value = serde_json::from_slice(&found.stdout).unwrap();
        service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": address }] } });
        let path = format!("/api/v1/namespaces/default/services/{name}/status");
        machine.must(&["replace", "--raw", &path, "-f", "-"], Some(&service));
    }
}

#[test]
fn a_node_with_nothing_but_the_proxy_reaches_services() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let _server = machine.server();
    eventually("the API server", || {
        machine.kubectl(&["get", "--raw", "/readyz"], None).status.success().then_some(())
    });
    for object in objects(&machine) {
        machine.must(&["create", "-f", "-"], Some(&object));
    }
    balance(&machine);
    serve(&machine.topology.b.netns.path(), &machine.topology.b.addresses, "far");
    let mut proxy = machine.proxy();
    let clients = mount_point().join(&machine.id).join("client");
    let inside = InCgroup::enter(&clients);

    let far = vec![Ok("far".to_owned()); 2];
    eventually("both families answer", || (machine.answers() == far).then_some(()));
    datagrams_are_answered(&machine);
    assert!(machine.health("/healthz").starts_with("HTTP/1.0 200"), "{}", machine.health("/healthz"));
    the_operator_sees_the_service(&machine);
    the_datapath_explains_itself(&machine);

    // The kernel goes on without us, and the next life of the proxy takes over what it finds.
    proxy.0.kill().unwrap();
    proxy.0.wait().unwrap();
    assert_eq!(machine.answers(), far);
    let services = machine.says(&["bpf", "services", "--bpffs", &machine.bpffs().display().to_string()]);
    assert!(services.contains("10.96.0.20:80/TCP"), "{services}");
    let proxy = machine.proxy();
    eventually("the proxy is back", || machine.health("/livez").starts_with("HTTP/1.0 200").then_some(()));
    assert_eq!(machine.answers(), far);
    drop(inside);
    let proxy = a_busy_node_explains_itself(&machine, proxy);
    let mut proxy = a_node_keeps_cluster_addresses_to_the_cluster(&machine, proxy);
    let _inside = InCgroup::enter(&clients);

    machine.must(&["delete", "endpointslices", "web-ipv4", "web-ipv6"], None);
    let refused = vec![Err(ErrorKind::ConnectionRefused); 2];
    eventually("a service without endpoints refuses", || (machine.answers() == refused).then_some(()));

    proxy.0.kill().unwrap();
    proxy.0.wait().unwrap();
    let removed = machine.clean_up();
    let said = String::from_utf8_lossy(&removed.stdout);
    assert!(said.contains("removed") && !machine.bpffs().exists(), "{removed:?}");
    // The kernel lets go of an unpinned link on its own time.
    eventually("nothing translates any more", || {
        (!machine.answers().contains(&Err(ErrorKind::ConnectionRefused))).then_some(())
    });
}

fn datagrams_are_answered(machine: &Machine) {
    machine.topology.a.netns.run(|| {
        for address in SERVICE {
            let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(echo::ANSWER_WAIT)).unwrap();
            socket.connect(SocketAddr::new(address.parse().unwrap(), 53)).unwrap();
            socket.send(b"?").unwrap();
            let mut answer = [0; 16];
            let length = socket.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], b"far", "{address}");
        }
    });
}

fn the_operator_sees_the_service(machine: &Machine) {
    let run = machine.path("run").display().to_string();
    let list = machine.says(&["service", "list", "--run-dir", &run, "-n", "default"]);
    let line = list.lines().find(|line| line.starts_with("default/web:tcp"));
    assert!(line.is_some_and(|line| line.contains("10.96.0.20:80/TCP [fd00:96::20]:80/TCP")), "{list}");
    let detail = machine.says(&["service", "get", "web", "--run-dir", &run, "-o", "json"]);
    let detail: Value = serde_json::from_str(&detail).unwrap();
    let backends = detail["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 4, "two ports of two families: {detail}");
    let here = machine.says(&["bpf", "backends", "--run-dir", &run]);
    assert!(here.contains("172.29.0.12:8080/TCP") && here.contains("default/web:tcp"), "{here}");
    let maps = machine.says(&["bpf", "maps", "--run-dir", &run]);
    assert!(maps.contains("SERVICES") && maps.contains("in all"), "{maps}");
    let unknown = machine.fairlead(&["service", "get", "nobody", "--run-dir", &run]).output().unwrap();
    let unknown = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.contains("default/nobody has no frontend"), "{unknown}");
}

/// Source, destination, whether it works, what is said.
type Asked = (&'static str, &'static str, bool, &'static [&'static str]);

const ASKED: &[Asked] = &[
    (
        "172.29.0.11",
        "10.96.0.20:80/TCP",
        true,
        &["service default/web:tcp", "frontend 10.96.0.20:80", "connected to the backend 172.29.0.12:8080"],
    ),
    ("fd00:29::b", "[fd00:96::20]:53/UDP", true, &["connected to the backend [fd00:29::c]:5353"]),
    ("172.29.0.11", "10.96.0.20:81/TCP", false, &["refused at once (ECONNREFUSED)", "no-such-port"]),
    // The API server's own ServiceCIDR says that it is a service's or nobody's.
    ("172.29.0.11", "10.96.0.99:80/TCP", false, &["refused at once (ECONNREFUSED)", "unknown-address"]),
    (
        "172.29.0.11",
        "10.96.0.30:80/TCP",
        false,
        &["service default/empty:tcp", "(ECONNREFUSED)", "no-endpoints"],
    ),
    ("172.29.0.200", "10.96.0.30:80/TCP", false, &["refused at once (ICMP)", "no-endpoints"]),
    ("172.29.0.11", "10.96.0.31:80/TCP", false, &["not permitted (EPERM)", "no-local-endpoints"]),
    ("172.29.0.200", "203.0.113.7:80/TCP", false, &["dropped", "no-local-endpoints"]),
    (
        "172.29.0.200",
        "172.29.0.11:30080/TCP",
        false,
        &["service default/edge:tcp", "node port 30080", "dropped", "no-local-endpoints"],
    ),
    // A policy for clients outside does not concern those inside.
    ("172.29.0.11", "172.29.0.11:30080/TCP", true, &["service default/edge:tcp", "connected to the backend"]),
    ("172.29.0.11", "203.0.113.8:80/TCP", false, &["not permitted (EPERM)", "source-not-allowed"]),
    ("172.29.0.200", "203.0.113.8:80/TCP", false, &["dropped", "source-not-allowed"]),
    ("198.51.100.9", "203.0.113.8:80/TCP", true, &["service default/ranged:tcp", "sent to the backend"]),
    (
        "172.29.0.200",
        "172.29.0.11:30081/TCP",
        true,
        &["service default/ranged:tcp", "among node ports 30000 to 32767", "sent to the backend"],
    ),
    (
        "172.29.0.200",
        "172.29.0.11:20080/TCP",
        true,
        &["port 20080 among node ports 30000 to 32767", "the host's stack takes it"],
    ),
    ("172.29.0.11", "172.29.0.12:22/TCP", true, &["is no service's"]),
    (
        "172.29.0.200",
        "10.96.0.20:80/TCP",
        true,
        &["outside the cluster", "sent to the backend 172.29.0.12:8080"],
    ),
    ("172.29.0.200", "10.96.0.20:81/TCP", false, &["no-such-port"]),
];

/// How another proxy is started, and what it says to a client outside while another one has a connection.
const BUSY: &[(&[&str], &[&str])] = &[
    (
        &["--forwarding=masquerade", "--masquerade-ports=61000-61001", "--map-size=conntrack=2"],
        &["2 of 2 entries", "dropped", "conntrack-full"],
    ),
    // Not a port that the connection before still has.
    (&["--forwarding=masquerade", "--masquerade-ports=61002-61002"], &["dropped", "snat-ports-exhausted"]),
];

/// Where the machine with servers asks from, so that it is not its own backend.
const BUSY_CLIENT: &str = "172.29.0.13";

/// The same connection before and while somebody else has one. Nobody translates our sockets meanwhile.
fn a_busy_node_explains_itself(machine: &Machine, mut proxy: Process) -> Process {
    let to: SocketAddr = "172.29.0.11:30081".parse().unwrap();
    let other = &machine.topology.b.netns;
    other.ip(&["address", "add", &format!("{BUSY_CLIENT}/24"), "dev", UPLINK]);
    other.ip(&["route", "add", "172.29.0.11", "dev", UPLINK, "src", BUSY_CLIENT]);
    let bpffs = machine.bpffs().display().to_string();
    for (options, said) in BUSY {
        proxy.0.kill().unwrap();
        proxy.0.wait().unwrap();
        proxy = machine.proxy_with(options);
        eventually("the proxy is ready", || {
            machine.health("/healthz").starts_with("HTTP/1.0 200").then_some(())
        });
        let question = [("172.29.0.200", "172.29.0.11:30081/TCP")];
        let masquerades: &[&str] = &["the client's address becomes 172.29.0.11"];
        explains(
            machine,
            &["--bpffs", &bpffs],
            &question.map(|(source, to)| (source, to, true, masquerades)),
        );
        let _held = other.run(|| {
            let mut stream = connect(to).unwrap();
            assert_eq!(ask(&mut stream).unwrap(), "far");
            stream
        });
        explains(machine, &["--bpffs", &bpffs], &question.map(|(source, to)| (source, to, false, *said)));
        let connection: &[&str] = &["172.29.0.11:30081", "172.29.0.12:8080", "masqueraded"];
        let maps: [(&str, &[&str]); 3] =
            [("conntrack", connection), ("nat", connection), ("affinity", &[BUSY_CLIENT])];
        for (map, shown) in maps {
            let text = machine.says(&["bpf", map, "--bpffs", &bpffs]);
            println!("{text}");
            for part in shown {
                assert!(text.contains(part), "{part:?} in {text}");
            }
        }
    }
    proxy
}

/// How another proxy is started, whether a client outside reaches a cluster address then, and what is said.
const GUARDED: &[(&[&str], bool, &[&str])] = &[
    (&["--forwarding=masquerade"], true, &["sent to the backend 172.29.0.12:8080"]),
    (&["--forwarding=masquerade", "--deny-outside-cluster-ips"], false, &["dropped", "outside-not-allowed"]),
];

/// A client outside with a route to a cluster address, before and while the node denies it.
fn a_node_keeps_cluster_addresses_to_the_cluster(machine: &Machine, mut proxy: Process) -> Process {
    let to: SocketAddr = "10.96.0.20:80".parse().unwrap();
    let other = &machine.topology.b.netns;
    let route = ["route", "add", "10.96.0.20", "via", "172.29.0.11", "dev", UPLINK, "src", BUSY_CLIENT];
    other.ip(&route);
    let bpffs = machine.bpffs().display().to_string();
    for (options, works, said) in GUARDED {
        proxy.0.kill().unwrap();
        proxy.0.wait().unwrap();
        proxy = machine.proxy_with(options);
        eventually("the proxy is ready", || {
            machine.health("/healthz").starts_with("HTTP/1.0 200").then_some(())
        });
        let question = [("172.29.0.200", "10.96.0.20:80/TCP", *works, *said)];
        explains(machine, &["--bpffs", &bpffs], &question);
        let found = other.run(|| connect(to).and_then(|mut stream| ask(&mut stream)));
        let expected = if *works { Ok("far") } else { Err(ErrorKind::TimedOut) };
        assert_eq!(found.as_deref().map_err(std::io::Error::kind), expected, "{options:?}");
        // Nodes and pods do not come from outside.
        explains(
            machine,
            &["--bpffs", &bpffs],
            &[("172.29.0.11", "10.96.0.20:80/TCP", true, &["connected to"])],
        );
    }
    proxy
}

fn the_datapath_explains_itself(machine: &Machine) {
    let run = machine.path("run").display().to_string();
    explains(machine, &["--run-dir", &run], ASKED);
    // Without an agent the same, but for names.
    let bpffs = machine.bpffs().display().to_string();
    let text = machine.says(&["explain", "172.29.0.11", "10.96.0.20:80", "--bpffs", &bpffs]);
    assert!(text.contains("connected to the backend 172.29.0.12:8080"), "{text}");
}

fn explains(machine: &Machine, place: &[&str], asked: &[Asked]) {
    for (source, destination, works, said) in asked {
        let output = machine.fairlead(&["explain", source, destination]).args(place).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        assert_eq!(output.status.success(), *works, "{text}{}", String::from_utf8_lossy(&output.stderr));
        for part in *said {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
}
