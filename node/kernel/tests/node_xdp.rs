//! Where the driver's program runs, on a real interface.
//!
//! Needs root and the eBPF object.

use fairlead_kernel::{Driver, DriverMode, Xdp};
use fairlead_testkit::{TwoNodes, netns::command, topology::UPLINK};

use crate::node::RunningNode;

#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod node;

#[test]
fn the_drivers_program_runs_where_it_is_asked_to() {
    let topology = TwoNodes::new();
    let mut node = RunningNode::start("a", &topology.a);
    let mode = |driver: Driver| driver.mode;
    // What `ip link` says of an interface with a program.
    let shown = || topology.a.netns.run(|| command("ip", &["link", "show", UPLINK]));

    // A veth has no wire: its packets may lack a checksum, so nothing runs there unasked.
    let driver = node.restart_with_xdp(Xdp::Auto).expect("opens");
    assert_eq!(driver.mode, DriverMode::Off);
    assert!(driver.reason.contains("veth"), "{}", driver.reason);
    assert!(!shown().contains("xdp"), "{}", shown());

    assert_eq!(mode(node.restart_with_xdp(Xdp::Native).expect("opens")), DriverMode::Native);
    assert!(shown().contains(" xdp "), "{}", shown());
    let before = node.links()["from_wire-4-uplink0"];
    assert_eq!(mode(node.restart_with_xdp(Xdp::Native).expect("opens")), DriverMode::Native);
    let after = node.links()["from_wire-4-uplink0"];
    assert_eq!(before.0, after.0, "a restart keeps the link");
    assert_ne!(before.1, after.1, "and gives it the new program");

    assert_eq!(mode(node.restart_with_xdp(Xdp::Generic).expect("opens")), DriverMode::Generic);
    assert!(shown().contains("xdpgeneric"), "{}", shown());
    assert_eq!(mode(node.restart_with_xdp(Xdp::Off).expect("opens")), DriverMode::Off);
    assert!(!shown().contains("xdp"), "{}", shown());
}

#[test]
fn another_program_on_the_interface_is_named_and_left_alone() {
    let topology = TwoNodes::new();
    let mut other = RunningNode::start("b", &topology.a);
    other.restart_with_xdp(Xdp::Native).expect("opens");
    let mut node = RunningNode::start("c", &topology.a);
    let error = node.restart_with_xdp(Xdp::Native).expect_err("the hook is taken").to_string();
    assert!(error.contains("another XDP program"), "{error}");
    let shown = topology.a.netns.run(|| command("ip", &["link", "show", UPLINK]));
    assert!(shown.contains(" xdp "), "{shown}");
}

#[test]
fn it_is_decided_again_when_another_interface_is_the_uplink() {
    let topology = TwoNodes::new();
    let mut node = RunningNode::start("d", &topology.a);
    node.restart_with_xdp(Xdp::Native).expect("opens");
    let shown = || topology.a.netns.run(|| command("ip", &["link", "show", UPLINK]));
    topology.cut_wire();
    topology.renew_wire();
    assert!(!shown().contains("xdp"), "{}", shown());
    assert_eq!(node.repair().len(), 1);
    assert!(shown().contains(" xdp "), "{}", shown());
    assert_eq!(node.driver().mode, DriverMode::Native);

    // The driver of an interface without frames takes none.
    topology.cut_wire();
    topology.a.netns.ip(&["tuntap", "add", "dev", UPLINK, "mode", "tun"]);
    assert_eq!(node.repair().len(), 1, "the node goes on without");
    assert_eq!(node.driver().mode, DriverMode::Off);
    assert!(node.driver().reason.contains("from_wire of uplink0"), "{}", node.driver().reason);
}

#[test]
fn an_interface_that_has_another_name_now_leaves_the_programs_to_the_one_that_has_it() {
    let topology = TwoNodes::new();
    let mut node = RunningNode::start("e", &topology.a);
    node.restart_with_xdp(Xdp::Generic).expect("opens");
    let ip = |arguments: &[&str]| topology.a.netns.ip(arguments);
    ip(&["link", "set", UPLINK, "down"]);
    ip(&["link", "set", UPLINK, "name", "before"]);
    let _other_end = topology.a.cable(UPLINK, 30);
    assert_eq!(node.repair().len(), 1);
    let shown = ["before", UPLINK].map(|name| ip(&["link", "show", name]).contains("xdpgeneric"));
    assert_eq!(shown, [false, true]);
    assert_eq!(node.repair(), Vec::<String>::new());
}
