//! The table by which the host's stack masquerades, and others who change it. Needs root, nftables and the eBPF object.

use fairlead_kernel::{Forwarding, ServiceOptions};
use fairlead_testkit::TwoNodes;

use crate::node::RunningNode;

#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod node;

const TABLE: [&str; 2] = ["inet", "fairlead-masquerade"];

/// What somebody does to it: commands of `nft`, in which HANDLE is that of the rule that masquerades.
const CHANGES: &[&[&str]] = &[
    &["delete table inet fairlead-masquerade"],
    &["flush chain inet fairlead-masquerade nat-postrouting"],
    // As many rules as before.
    &["replace rule inet fairlead-masquerade nat-postrouting handle HANDLE counter accept"],
    &[
        "flush chain inet fairlead-masquerade filter-postrouting",
        "add rule inet fairlead-masquerade filter-postrouting meta mark set 0",
    ],
    &["add chain inet fairlead-masquerade another"],
];

#[test]
fn whatever_somebody_changes_of_the_table_is_put_right() {
    if !node::can_run() {
        return;
    }
    let topology = TwoNodes::new();
    let options = ServiceOptions { forwarding: Forwarding::Stack, ..ServiceOptions::default() };
    let mut node = RunningNode::start_with("a", &topology.a, options);
    let nft = |arguments: &[&str]| topology.a.netns.exec("nft", arguments);
    let listed = || nft(&[&["--stateless", "list", "table"], &TABLE[..]].concat());
    let made = listed();
    assert!(made.contains("masquerade to :"), "{made}");
    assert!(node.repair().is_empty(), "nobody has changed it");
    for commands in CHANGES {
        let with_handles = nft(&[&["--handle", "list", "table"], &TABLE[..]].concat());
        let rule = with_handles.lines().find(|line| line.contains("masquerade to")).expect("the rule");
        let (_, handle) = rule.rsplit_once("handle ").expect("its handle");
        for command in *commands {
            nft(&command.replace("HANDLE", handle.trim()).split(' ').collect::<Vec<_>>());
        }
        assert!(!node.repair().is_empty(), "{commands:?}");
        assert_eq!(listed(), made, "{commands:?}");
        assert!(node.repair().is_empty(), "{commands:?} is put right once");
    }
}
