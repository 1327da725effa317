//! What is removed of modes when no agent runs. Needs root, iptables and ipset.

use std::fs;

use fairlead_agent::{MODES_FILE, clean_up};
use fairlead_testkit::{Netns, netns::run_in};
use tempfile::TempDir;
use tokio::runtime::Builder;

/// A node that an agent has left.
struct Node {
    netns: Netns,
    state: TempDir,
}

impl Node {
    /// With these files in the state directory.
    fn new(files: &[(&str, &str)]) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            fs::write(state.path().join(name), content).expect("writes");
        }
        Self { netns: Netns::new("left"), state }
    }

    fn clean_up(&self) {
        run_in(&self.netns.path(), || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let pins = self.state.path().join("pins");
            runtime.block_on(clean_up(self.state.path(), &pins)).unwrap_or_else(|error| panic!("{error}"));
        });
        assert!(!self.state.path().join(MODES_FILE).exists());
    }

    fn set(&self, parameter: &str, value: &str) {
        let path = format!("/proc/sys/net/{parameter}");
        self.netns.run(|| fs::write(&path, value)).expect("every namespace has it");
    }

    fn parameter(&self, name: &str) -> String {
        let path = format!("/proc/sys/net/{name}");
        self.netns.run(|| fs::read_to_string(&path)).expect("every namespace has it").trim().to_owned()
    }
}

#[test]
fn the_interface_of_ipvs_goes_also_where_the_kernel_has_no_ipvs_and_no_parameter_is_set() {
    let node = Node::new(&[(MODES_FILE, "ipvs\n")]);
    // A dummy interface would need a module, and what its kind is does not matter.
    node.netns.ip(&["link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "nowhere"]);
    node.netns.ip(&["address", "add", "10.96.0.20/32", "dev", "kube-ipvs0"]);
    node.clean_up();
    let links = node.netns.ip(&["-brief", "link"]);
    assert!(!links.contains("kube-ipvs0"), "{links}");
    assert_eq!(node.parameter("ipv4/ip_forward"), "0");
}

#[test]
fn loopback_is_closed_again_if_the_agent_has_opened_it() {
    const PARAMETER: &str = "ipv4/conf/all/route_localnet";
    let opened: &[_] = &[(MODES_FILE, "iptables\n"), ("route-localnet", "0\n")];
    for (files, after) in [(opened, "0"), (&opened[..1], "1")] {
        let node = Node::new(files);
        node.set(PARAMETER, "1");
        node.clean_up();
        assert_eq!(node.parameter(PARAMETER), after);
        node.set(PARAMETER, "1");
        node.clean_up();
        assert_eq!(node.parameter(PARAMETER), "1", "it is set by somebody else now");
    }
}
