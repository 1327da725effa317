//! Pod networks: where other nodes' are reached, and that our own leads nowhere but to our pods.

use std::{collections::BTreeMap, net::IpAddr};

use fairlead_model::{Node, Prefix, View};

use crate::{Op, Problem};

/// Routes of ours that the kernel holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedRoutes {
    /// The map that link programs read.
    pub map: RouteTable,
    /// The kernel's own table.
    pub kernel: RouteTable,
}

/// Next hops by prefix; none where only pods of this node are reached, by more specific routes.
pub type RouteTable = BTreeMap<Prefix, Option<IpAddr>>;

/// What it takes to make `observed` what the view asks for on the node called `node`, whose map holds `capacity`
/// routes. Those that do not fit are the problem: this node's own have a place before others, and who has one keeps it.
/// The kernel's table has them all.
pub fn plan_routes(
    view: &View,
    node: &str,
    observed: &ObservedRoutes,
    capacity: u32,
) -> (Vec<Op>, Option<Problem>) {
    if !view.is_complete() {
        return (Vec::new(), None);
    }
    let desired = desired_routes(view, node);
    let mut ops = Vec::new();
    // The kernel's table first: what the programs leave to it must have a way.
    for (prefix, next_hop) in missing(&desired, &observed.kernel) {
        ops.push(Op::PutKernelRoute { prefix, next_hop });
    }
    let (fitting, refused) = fit(&desired, &observed.map, capacity);
    // Room first; meanwhile the kernel's table has the way.
    ops.extend(superfluous(&fitting, &observed.map).map(|prefix| Op::DeleteRoute { prefix }));
    for (prefix, next_hop) in missing(&fitting, &observed.map) {
        ops.push(Op::PutRoute { prefix, next_hop });
    }
    ops.extend(superfluous(&desired, &observed.kernel).map(|prefix| Op::DeleteKernelRoute { prefix }));
    (ops, (!refused.is_empty()).then_some(Problem::NoRoutes { networks: refused }))
}

/// The routes that the map has room for, and the prefixes of the others. One entry stays free: older kernels
/// need it to replace another one (`trie_update_elem` in `kernel/bpf/lpm_trie.c`).
fn fit(desired: &RouteTable, observed: &RouteTable, capacity: u32) -> (RouteTable, Vec<Prefix>) {
    let mut by_rank: Vec<_> = desired.iter().map(|(prefix, hop)| (*prefix, *hop)).collect();
    by_rank.sort_by_key(|(prefix, hop)| (hop.is_some(), !observed.contains_key(prefix)));
    let refused = by_rank.split_off(by_rank.len().min(capacity.saturating_sub(1) as usize));
    (by_rank.into_iter().collect(), refused.into_iter().map(|(prefix, _)| prefix).collect())
}

fn missing(desired: &RouteTable, observed: &RouteTable) -> impl Iterator<Item = (Prefix, Option<IpAddr>)> {
    let changed = desired.iter().filter(|(prefix, hop)| observed.get(prefix) != Some(hop));
    changed.map(|(prefix, hop)| (*prefix, *hop))
}

fn superfluous(desired: &RouteTable, observed: &RouteTable) -> impl Iterator<Item = Prefix> {
    observed.keys().filter(|prefix| !desired.contains_key(prefix)).copied()
}

/// The pod networks of all nodes. A prefix claimed twice goes to the first node by name, so that every node of the
/// cluster decides alike; our own is ours.
fn desired_routes(view: &View, node: &str) -> RouteTable {
    let own = view.node(node).into_iter().flat_map(|own| own.pod_networks.iter());
    let mut routes: RouteTable = own.map(|prefix| (*prefix, None)).collect();
    for other in view.nodes().filter(|other| other.name != node) {
        for prefix in &other.pod_networks {
            if let Some(hop) = address_for(other, prefix) {
                routes.entry(*prefix).or_insert(Some(hop));
            }
        }
    }
    routes
}

fn address_for(node: &Node, prefix: &Prefix) -> Option<IpAddr> {
    node.addresses.iter().copied().find(|address| address.is_ipv4() == prefix.address.is_ipv4())
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change, Revision, Update};

    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("address/length");
        Prefix { address: address.parse().expect("address"), length: length.parse().expect("length") }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn node(name: &str, addresses: &[&str], networks: &[&str]) -> Change {
        Change::PutNode(Node {
            name: name.into(),
            addresses: addresses.iter().map(|a| ip(a)).collect(),
            pod_networks: networks.iter().map(|n| prefix(n)).collect(),
            ..Node::default()
        })
    }

    fn view(changes: Vec<Change>) -> View {
        let mut view = View::default();
        view.apply(Update { revision: Revision { epoch: 1, sequence: 1 }, snapshot: true, changes });
        view
    }

    /// Plans for node `a` and applies the plan.
    fn reconcile(observed: &mut ObservedRoutes, view: &View) {
        reconcile_within(observed, view, u32::MAX);
    }

    /// The same where the map holds so many; returns the networks that did not fit. The map is never fuller than that.
    fn reconcile_within(observed: &mut ObservedRoutes, view: &View, capacity: u32) -> Vec<Prefix> {
        let (ops, problem) = plan_routes(view, "a", observed, capacity);
        for op in ops {
            match op {
                Op::PutRoute { prefix, next_hop } => drop(observed.map.insert(prefix, next_hop)),
                Op::DeleteRoute { prefix } => drop(observed.map.remove(&prefix)),
                Op::PutKernelRoute { prefix, next_hop } => drop(observed.kernel.insert(prefix, next_hop)),
                Op::DeleteKernelRoute { prefix } => drop(observed.kernel.remove(&prefix)),
                other => panic!("not a route: {other:?}"),
            }
            assert!(observed.map.len() < capacity as usize, "one is free for what is replaced");
        }
        match problem {
            Some(Problem::NoRoutes { networks }) => networks,
            None => Vec::new(),
            other => panic!("not about routes: {other:?}"),
        }
    }

    /// Other nodes with the number of their network, which networks are in the map then, and which are refused.
    type Step = (&'static [(&'static str, u8)], &'static [u8], &'static [u8]);

    #[test]
    fn a_full_map_has_what_fits_and_gives_freed_room_to_the_others() {
        let nodes = |all: &[(&str, u8)]| {
            let own = node("a", &["172.29.0.11"], &["10.244.0.0/24"]);
            let other = |(name, number): &(&str, u8)| {
                let (address, network) = (format!("172.29.0.{number}"), format!("10.244.{number}.0/24"));
                node(name, &[&address], &[&network])
            };
            view(all.iter().map(other).chain([own]).collect())
        };
        let networks = |numbers: &[u8]| numbers.iter().map(|n| prefix(&format!("10.244.{n}.0/24"))).collect();
        let in_map = |observed: &ObservedRoutes| observed.map.keys().copied().collect::<Vec<_>>();
        let mut observed = ObservedRoutes::default();
        let steps: [Step; 6] = [
            (&[("c", 3), ("d", 4)], &[0, 3, 4], &[]),
            // Who has a place keeps it, and this node's own is never refused.
            (&[("b", 2), ("c", 3), ("d", 4), ("e", 5)], &[0, 3, 4], &[2, 5]),
            // Freed room goes to the others.
            (&[("b", 2), ("d", 4), ("e", 5)], &[0, 2, 4], &[5]),
            (&[("e", 5), ("f", 6)], &[0, 5, 6], &[]),
            // Both that are there leave, and three come at once.
            (&[("b", 2), ("c", 3), ("d", 4)], &[0, 2, 3], &[4]),
            (&[], &[0], &[]),
        ];
        for (nodes_now, fitting, refused) in steps {
            let view = nodes(nodes_now);
            let found = reconcile_within(&mut observed, &view, 4);
            assert_eq!((in_map(&observed), found), (networks(fitting), networks(refused)), "{nodes_now:?}");
            assert_eq!(observed.kernel.len(), nodes_now.len() + 1, "the kernel's table has them all");
            assert_eq!(plan_routes(&view, "a", &observed, 4).0, [], "a second plan has nothing to do");
        }
        let told = Problem::NoRoutes { networks: networks(&[4, 5]) }.to_string();
        assert!(told.contains("10.244.4.0/24, 10.244.5.0/24 of other nodes do not fit"), "{told}");
    }

    #[test]
    fn each_family_goes_by_the_address_of_its_own_family() {
        let view = view(vec![
            node("a", &["172.29.0.11"], &["10.244.0.0/24"]),
            node("b", &["172.29.0.12", "fd00:29::c"], &["10.244.1.0/24", "fd00:244:0:1::/64"]),
            node("c", &["172.29.0.13"], &["10.244.2.0/24", "fd00:244:0:2::/64"]),
        ]);
        let mut observed = ObservedRoutes::default();
        reconcile(&mut observed, &view);
        assert_eq!(
            observed.map,
            BTreeMap::from([
                (prefix("10.244.0.0/24"), None),
                (prefix("10.244.1.0/24"), Some(ip("172.29.0.12"))),
                (prefix("10.244.2.0/24"), Some(ip("172.29.0.13"))),
                (prefix("fd00:244:0:1::/64"), Some(ip("fd00:29::c"))),
            ])
        );
        assert_eq!(observed.kernel, observed.map);
        assert_eq!(plan_routes(&view, "a", &observed, u32::MAX).0, [], "a second plan has nothing to do");
    }

    #[test]
    fn a_node_that_left_takes_its_routes_along_and_one_that_moved_is_followed() {
        let before = view(vec![
            node("a", &["172.29.0.11"], &["10.244.0.0/24"]),
            node("b", &["172.29.0.12"], &["10.244.1.0/24"]),
            node("c", &["172.29.0.13"], &["10.244.2.0/24"]),
        ]);
        let mut observed = ObservedRoutes::default();
        reconcile(&mut observed, &before);
        let after = view(vec![
            node("a", &["172.29.0.11"], &["10.244.0.0/24"]),
            node("c", &["172.29.0.23"], &["10.244.2.0/24"]),
        ]);
        reconcile(&mut observed, &after);
        let expected = [(prefix("10.244.0.0/24"), None), (prefix("10.244.2.0/24"), Some(ip("172.29.0.23")))];
        assert_eq!(observed.map, BTreeMap::from(expected));
        assert_eq!(observed.kernel, observed.map);
    }

    #[test]
    fn nothing_is_planned_before_the_first_complete_snapshot() {
        let mut observed = ObservedRoutes::default();
        observed.map.insert(prefix("10.244.1.0/24"), Some(ip("172.29.0.12")));
        assert_eq!(plan_routes(&View::default(), "a", &observed, u32::MAX), (vec![], None));
    }
}
