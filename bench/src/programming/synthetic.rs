//! A cluster that does not exist: as many services and endpoints as one likes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Protocol, Revision, Service,
    ServicePort, Update,
};

/// Name of the node whose agent is measured.
pub(super) const NODE: &str = "bench";

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// 10.96.0.0/12 and fd00:96::/96.
    fn service(self, number: u32) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::from_bits(0x0a60_0000 + number).into(),
            Self::Ipv6 => Ipv6Addr::from_bits((0xfd00_0096 << 96) + u128::from(number)).into(),
        }
    }

    /// 10.128.0.0/9 and fd00:244::/96.
    fn pod(self, number: u32) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::from_bits(0x0a80_0000 + number).into(),
            Self::Ipv6 => Ipv6Addr::from_bits((0xfd00_0244 << 96) + u128::from(number)).into(),
        }
    }
}

/// The cluster, and how far it has been told.
pub(super) struct Synthetic {
    family: Family,
    services: u32,
    endpoints: u32,
    node_addresses: Vec<IpAddr>,
    sequence: u64,
    /// Address for the next new endpoint.
    next_pod: u32,
}

impl Synthetic {
    pub(super) fn new(family: Family, services: u32, endpoints: u32, node_addresses: &[IpAddr]) -> Self {
        let next_pod = services * endpoints + 1;
        Self { family, services, endpoints, node_addresses: node_addresses.to_vec(), sequence: 0, next_pod }
    }

    /// Everything.
    pub(super) fn snapshot(&mut self) -> Update {
        let node = Node {
            name: NODE.into(),
            addresses: self.node_addresses.clone(),
            ready: true,
            ..Node::default()
        };
        let mut changes = vec![Change::PutNode(node)];
        for number in 0..self.services {
            changes.push(Change::PutSlice(self.slice(number, None)));
            changes.push(Change::PutService(self.service(number)));
        }
        self.update(true, changes)
    }

    /// One endpoint of one service gives way to another.
    pub(super) fn change_one(&mut self, turn: u32) -> Update {
        // A prime step, so that neighbours in the maps are not changed one after the other.
        let number = (u64::from(turn) * 7_919 % u64::from(self.services)) as u32;
        let replacement = (turn % self.endpoints, self.next_pod);
        self.next_pod += 1;
        let slice = self.slice(number, Some(replacement));
        self.update(false, vec![Change::PutSlice(slice)])
    }

    fn update(&mut self, snapshot: bool, changes: Vec<Change>) -> Update {
        self.sequence += 1;
        Update { revision: Revision { epoch: 1, sequence: self.sequence }, snapshot, changes }
    }

    fn service(&self, number: u32) -> Service {
        Service {
            name: name(number),
            addresses: vec![self.family.service(number + 1)],
            ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
            ..Service::default()
        }
    }

    /// The service's endpoints, one of them replaced by a pod with another address.
    fn slice(&self, number: u32, replaced: Option<(u32, u32)>) -> EndpointSlice {
        let pod = |index: u32| match replaced {
            Some((old, pod)) if old == index => pod,
            _ => number * self.endpoints + index + 1,
        };
        let endpoint = |index: u32| Endpoint {
            // A tenth of the endpoints is here.
            node: if index == 0 { NODE.into() } else { format!("other-{index}").into() },
            pod: format!("web-{number}-{}", pod(index)).into(),
            ..Endpoint::ready_at(self.family.pod(pod(index)), "")
        };
        EndpointSlice {
            name: ObjectName::new("bench", format!("service-{number}-1")),
            service: name(number).name.to_string(),
            ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
            endpoints: (0..self.endpoints).map(endpoint).collect(),
            triggered_unix_ns: 0,
        }
    }
}

fn name(number: u32) -> ObjectName {
    ObjectName::new("bench", format!("service-{number}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_change_replaces_exactly_one_endpoint() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut cluster = Synthetic::new(family, 7, 10, &[]);
            let mut view = fairlead_model::View::default();
            view.apply(cluster.snapshot());
            let addresses = |view: &fairlead_model::View| -> BTreeSet<IpAddr> {
                view.slices().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.address).collect()
            };
            let before = addresses(&view);
            assert_eq!(before.len(), 70);
            assert_eq!(view.apply(cluster.change_one(3)).len(), 1);
            let after = addresses(&view);
            assert_eq!((before.difference(&after).count(), after.difference(&before).count()), (1, 1));
        }
    }
}
