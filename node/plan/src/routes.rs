//! Pod networks: where other nodes' are reached, and that our own leads nowhere but to our pods.

use std::{collections::BTreeMap, net::IpAddr};

use fairlead_model::{Node, Prefix, View};

use crate::Op;

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

/// What it takes to make `observed` what the view asks for on the node called `node`.
pub fn plan_routes(view: &View, node: &str, observed: &ObservedRoutes) -> Vec<Op> {
    if !view.is_complete() {
        return Vec::new();
    }
    let desired = desired_routes(view, node);
    let mut ops = Vec::new();
    // The kernel's table first: what the programs leave to it must have a way.
    for (prefix, next_hop) in missing(&desired, &observed.kernel) {
        ops.push(Op::PutKernelRoute { prefix, next_hop });
    }
    for (prefix, next_hop) in missing(&desired, &observed.map) {
        ops.push(Op::PutRoute { prefix, next_hop });
    }
    ops.extend(superfluous(&desired, &observed.map).map(|prefix| Op::DeleteRoute { prefix }));
    ops.extend(superfluous(&desired, &observed.kernel).map(|prefix| Op::DeleteKernelRoute { prefix }));
    ops
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
        for op in plan_routes(view, "a", observed) {
            match op {
                Op::PutRoute { prefix, next_hop } => drop(observed.map.insert(prefix, next_hop)),
                Op::DeleteRoute { prefix } => drop(observed.map.remove(&prefix)),
                Op::PutKernelRoute { prefix, next_hop } => drop(observed.kernel.insert(prefix, next_hop)),
                Op::DeleteKernelRoute { prefix } => drop(observed.kernel.remove(&prefix)),
                other => panic!("not a route: {other:?}"),
            }
        }
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
        assert_eq!(plan_routes(&view, "a", &observed), [], "a second plan has nothing to do");
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
        assert_eq!(plan_routes(&View::default(), "a", &observed), []);
    }
}
