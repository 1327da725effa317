//! An agent that is killed between two operations of one plan, and the next one, which brings it to the end.
//!
//! The one that is killed is a process of its own: this test again, which stops where it is to die. Needs root and the eBPF
//! object.

use std::{
    env,
    io::{self, BufRead, BufReader, Read as _, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use fairlead_kernel::ServiceOptions;
use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, ObjectName, Protocol, Revision, Service, ServicePort,
    Update, View,
};
use fairlead_plan::{Changes, Op, Scope};
use fairlead_testkit::{
    Netns, Node, TwoNodes,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, datagrams, exchange, serve_at},
};

use crate::node::RunningNode;

#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod node;

/// Set for the process that is killed: the directory of its pins, and the node's namespace.
const DIRECTORY: &str = "FAIRLEAD_TEST_DIRECTORY";
const NETNS: &str = "FAIRLEAD_TEST_NETNS";

const NODE_PORT: u16 = 30_053;

/// Another one, which stays with its service.
const OTHER_PORT: u16 = 30_054;

/// Where the clients ask from.
const FIXED_PORT: u16 = 40_053;

/// The node's addresses, on which the endpoints are its own processes.
const ADDRESSES: [&str; 2] = ["172.29.0.11", "fd00:29::b"];

/// Where the endpoints of the services listen.
const ENDPOINTS: [(&str, u16); 2] = [("first", UDP_PORT), ("second", UDP_PORT + 1)];

#[test]
fn flows_of_a_number_that_was_given_away_end_though_the_agent_was_killed_before() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return is_killed(&directory.to_string_lossy());
    }
    if !node::can_run() {
        return;
    }
    let topology = TwoNodes::new();
    for (number, (name, port)) in (0..).zip(ENDPOINTS) {
        serve_at(&topology.a.netns.path(), &topology.a.addresses, [TCP_PORT + number, port], name);
    }
    let directory = format!("fltest-killed-{}", std::process::id());
    let mut agent = Agent::start(&directory, &topology.a.netns);
    agent.wait_for("the first has the number");
    let clients = [0, 1].map(|family| Client::new(&topology, family));
    clients.iter().for_each(|client| client.are_answered_by(["first", "first"]));
    agent.go_on();
    agent.wait_for("the second has it");
    // The maps are written, the flows go on: that is where it dies.
    clients.iter().for_each(|client| client.are_answered_by(["first", "first"]));
    agent.kill();
    clients.iter().for_each(|client| client.are_answered_by(["first", "first"]));
    let mut next = RunningNode::start_in(&directory, "a", &topology.a, ServiceOptions::default());
    next.sync(&view("second"));
    clients.iter().for_each(|client| client.are_answered_by(["second", "first"]));
}

/// The process that is killed.
fn is_killed(directory: &str) {
    let netns = env::var(NETNS).expect("it is set with the directory");
    let addresses = ADDRESSES.map(ip).to_vec();
    let node = Node { netns: Netns::of_another(&netns), addresses };
    let mut agent = RunningNode::start_in(directory, "a", &node, ServiceOptions::default());
    agent.sync(&view("first"));
    say("the first has the number");
    io::stdin().read_line(&mut String::new()).expect("the other process lives");
    let services = ENDPOINTS.iter().map(|(name, _)| ObjectName::new("demo", *name)).collect();
    let changes = Changes { services, ..Changes::default() };
    let flows_stay = |op: &Op| !matches!(op, Op::EndFlows { .. });
    let (all, done) = agent.sync_some(&view("second"), Scope::Changed(&changes), flows_stay);
    assert!(done < all, "flows are to be ended");
    say("the second has it");
    loop {
        std::thread::park();
    }
}

/// Tells the other process.
fn say(what: &str) {
    println!("{what}");
    io::stdout().flush().expect("the other process listens");
}

/// The process that is killed, as the other one sees it.
struct Agent {
    child: Child,
    stdin: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Agent {
    fn start(directory: &str, netns: &Netns) -> Self {
        let own = env::current_exe().expect("this program");
        let test = "flows_of_a_number_that_was_given_away_end_though_the_agent_was_killed_before";
        let mut command = Command::new(own);
        command.args([test, "--exact", "--nocapture"]).env(DIRECTORY, directory).env(NETNS, netns.name());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let stdin = child.stdin.take().expect("a pipe");
        let says = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdin, says }
    }

    /// Waits until it says that; the harness says more.
    fn wait_for(&mut self, what: &str) {
        let lines = self.says.by_ref().lines();
        let said = lines.map_while(Result::ok).any(|line| line.contains(what));
        assert!(said, "it ended before {what}");
    }

    fn go_on(&mut self) {
        writeln!(self.stdin, "go on").expect("it lives");
    }

    fn kill(mut self) {
        // SIGKILL.
        self.child.kill().expect("it lives");
        self.child.wait().expect("it was started here");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On the other machine: it asks both numbers of a family, each from one port all the time.
struct Client {
    sockets: [(UdpSocket, SocketAddr); 2],
}

impl Client {
    fn new(topology: &TwoNodes, family: usize) -> Self {
        let socket = |number: u16, port| {
            let address = topology.a.addresses[family];
            let netns = topology.b.netns.path();
            let own = FIXED_PORT + 2 * u16::from(address.is_ipv6()) + number;
            (datagrams(&netns, address.is_ipv4(), own, ANSWER_WAIT), SocketAddr::new(address, port))
        };
        Self { sockets: [socket(0, NODE_PORT), socket(1, OTHER_PORT)] }
    }

    fn are_answered_by(&self, expected: [&str; 2]) {
        let answers = self.sockets.each_ref().map(|(socket, to)| exchange(socket, *to).expect("an answer"));
        assert_eq!(answers, expected, "{:?}", self.sockets[0].1);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The cluster where this service has the number. The first one has another one besides.
fn view(owner: &str) -> View {
    let service = |(index, (name, _)): (u8, (&str, u16))| {
        let port = |port_name: &str, port, node_port| ServicePort {
            name: port_name.into(),
            protocol: Protocol::Udp,
            port,
            node_port,
        };
        let number = if name == owner { NODE_PORT } else { 0 };
        let other = if name == "first" { OTHER_PORT } else { 0 };
        Change::PutService(Service {
            name: ObjectName::new("demo", name),
            addresses: vec![ip(&format!("10.96.0.{}", 20 + index)), ip(&format!("fd00:96::{}", 20 + index))],
            ports: vec![port("dns", 53, number), port("other", 54, other)],
            ..Service::default()
        })
    };
    let slice = |name: &str, target: u16, address: &str| {
        let address = ip(address);
        let port =
            |port_name: &str| EndpointPort { name: port_name.into(), protocol: Protocol::Udp, port: target };
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("demo", format!("{name}-{}", if address.is_ipv4() { 4 } else { 6 })),
            service: name.into(),
            ports: vec![port("dns"), port("other")],
            endpoints: vec![Endpoint::ready_at(address, "a")],
            triggered_unix_ns: 0,
        })
    };
    let mut changes: Vec<Change> = (0..).zip(ENDPOINTS).map(service).collect();
    for (name, target) in ENDPOINTS {
        changes.extend(ADDRESSES.map(|address| slice(name, target, address)));
    }
    let mut view = View::default();
    let revision = Revision { epoch: 1, sequence: 1 };
    view.apply(Update { revision, snapshot: true, changes });
    view
}
