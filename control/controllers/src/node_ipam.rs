//! Pod networks of nodes: one prefix per family, held for as long as the node exists.

use std::collections::HashSet;

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::Resource;
use serde_json::json;

use crate::{
    cache::{Caches, Key, Touched},
    driver::Controller,
    meta::is_deleting,
    plan::{Notice, Plan, Write},
};

/// The controller.
#[derive(Debug)]
pub struct NodeIpam {
    /// Where the prefixes come from, at most one per family, and how long a node's is.
    pools: Vec<(IpNet, u8)>,
}

impl NodeIpam {
    /// From the cluster's pod networks and the lengths of a node's part of IPv4 and IPv6 ones.
    pub fn new(cluster_cidrs: &[IpNet], mask_v4: u8, mask_v6: u8) -> Self {
        let mask = |net: &IpNet| if net.addr().is_ipv4() { mask_v4 } else { mask_v6 };
        Self { pools: cluster_cidrs.iter().map(|net| (*net, mask(net))).collect() }
    }

    /// The first prefix of each pool that no node has; an error names the pool that is used up.
    fn allocate(&self, taken: &HashSet<IpNet>) -> Result<Vec<IpNet>, IpNet> {
        let free = |(pool, mask): &(IpNet, u8)| {
            let overlaps = |net: &IpNet| taken.iter().any(|taken| taken.contains(net) || net.contains(taken));
            let mut subnets = pool.subnets(*mask).map_err(|_| *pool)?;
            // The common case, a prefix of the same length, is looked up and not compared with all.
            let longer = taken.iter().any(|taken| pool.contains(taken) && taken.prefix_len() != *mask);
            subnets.find(|net| !(taken.contains(net) || longer && overlaps(net))).ok_or(*pool)
        };
        self.pools.iter().map(free).collect()
    }
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.clone().unwrap_or_default();
    let listed = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    listed.iter().filter_map(|text| text.parse().ok()).collect()
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn keys(&self, view: &Caches, touched: &Touched) -> Vec<Key> {
        let Touched::Node(changed) = touched else { return Vec::new() };
        if changed.new.is_some() {
            return vec![Key::of(changed.latest())];
        }
        // A prefix has become free: whoever waits for one gets it.
        let nodes = view.nodes.all();
        nodes.iter().filter(|node| cidrs(node).is_empty()).map(|node| Key::of(node.as_ref())).collect()
    }

    fn reconcile(&self, view: &Caches, key: &Key, _: Timestamp) -> Plan {
        let Some(node) = view.nodes.get(key) else { return Plan::default() };
        if !cidrs(&node).is_empty() || is_deleting(&node.metadata) || self.pools.is_empty() {
            return Plan::default();
        }
        let taken = view.nodes.all().iter().flat_map(|node| cidrs(node)).collect();
        let write = match self.allocate(&taken) {
            Ok(found) => {
                let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
                let patch = json!({"spec": {"podCIDR": texts.first(), "podCIDRs": texts}});
                Write::patch(node.as_ref(), patch)
            }
            Err(pool) => Write::Notify(Notice {
                regarding: node.object_ref(&()),
                related: None,
                warning: true,
                reason: "CIDRNotAvailable",
                note: format!("Every pod network of {pool} belongs to a node; remove nodes or enlarge it"),
            }),
        };
        Plan { writes: vec![write], again_in: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam() -> NodeIpam {
        let pools = ["10.244.0.0/22", "fd00:244::/56"].map(|net| net.parse().expect("a network"));
        NodeIpam::new(&pools, 24, 64)
    }

    fn node(name: &str, cidrs: &[&str]) -> Node {
        let meta = json!({"name": name, "uid": name, "resourceVersion": "1"});
        serde_json::from_value(json!({"metadata": meta, "spec": {"podCIDRs": cidrs}})).expect("a node")
    }

    fn given(nodes: &[(&str, &[&str])]) -> Plan {
        let view = Caches::default();
        for (name, cidrs) in nodes {
            view.nodes.put(node(name, cidrs));
        }
        ipam().reconcile(&view, &Key::new("", "new"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_node_gets_the_first_free_prefix_of_each_family() {
        type Row<'a> = (&'a [(&'a str, &'a [&'a str])], [&'a str; 2]);
        let rows: [Row<'_>; 3] = [
            (&[], ["10.244.0.0/24", "fd00:244::/64"]),
            (&[("a", &["10.244.0.0/24", "fd00:244::/64"])], ["10.244.1.0/24", "fd00:244:0:1::/64"]),
            (&[("b", &["10.244.1.0/24", "fd00:244:0:1::/64"])], ["10.244.0.0/24", "fd00:244::/64"]),
        ];
        for (others, expected) in rows {
            let mut nodes = others.to_vec();
            nodes.push(("new", &[]));
            let plan = given(&nodes);
            let [Write::Patch { patch, .. }] = plan.writes.as_slice() else { panic!("one patch: {plan:?}") };
            assert_eq!(patch["spec"], json!({"podCIDR": expected[0], "podCIDRs": expected}));
            assert_eq!(patch["metadata"]["resourceVersion"], "1");
        }
    }

    #[test]
    fn a_node_keeps_what_it_has_and_a_full_pool_is_said() {
        assert_eq!(given(&[("new", &["10.9.0.0/24"])]), Plan::default());
        let full: Vec<String> = (0..4).map(|i| format!("10.244.{i}.0/24")).collect();
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        let plan = given(&[("a", &full), ("new", &[])]);
        assert!(matches!(&plan.writes[..], [Write::Notify(notice)] if notice.reason == "CIDRNotAvailable"));
    }
}
