//! What a load balancer in front of the cluster asks this node: which services have an endpoint here.
//!
//! Kept per service as updates come, so that neither an answer nor a scrape looks at all services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_model::{EndpointSlice, ObjectName, Service, ServiceKind, TrafficPolicy, View};

/// Services with a traffic policy Local, as this node sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locals {
    services: BTreeMap<ObjectName, Local>,
    /// `healthCheckNodePort`s, each with the services that have it. The API gives a port to one service; while one is
    /// replaced by another, both may be seen.
    ports: BTreeMap<u16, BTreeSet<ObjectName>>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Local {
    health_check_port: u16,
    /// Ready endpoints on this node, of the address family that has more of them: a pod has one in each.
    ready: usize,
    /// Policies under which the service has endpoints and none that this node may use.
    missing: Missing,
}

/// How many services have a traffic policy Local and endpoints, but none on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Missing {
    pub(crate) internal: usize,
    pub(crate) external: usize,
}

impl Locals {
    /// Looks again at these services.
    pub(crate) fn update(&mut self, view: &View, touched: &BTreeSet<ObjectName>, node: &str) {
        for name in touched {
            if let Some(old) = self.services.remove(name)
                && let Some(names) = self.ports.get_mut(&old.health_check_port)
            {
                names.remove(name);
                if names.is_empty() {
                    self.ports.remove(&old.health_check_port);
                }
            }
            let Some(local) = view.service(name).and_then(|service| Local::of(service, view, node)) else {
                continue;
            };
            if local.health_check_port != 0 {
                self.ports.entry(local.health_check_port).or_default().insert(name.clone());
            }
            self.services.insert(name.clone(), local);
        }
    }

    /// Ports on which a load balancer may ask.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.ports.keys().copied().collect()
    }

    /// The service with this `healthCheckNodePort`, and how many ready endpoints it has here.
    pub(crate) fn at_port(&self, port: u16) -> Option<(&ObjectName, usize)> {
        let name = self.ports.get(&port)?.first()?;
        Some((name, self.services.get(name)?.ready))
    }

    /// Services whose policy finds nothing here.
    pub(crate) fn missing(&self) -> Missing {
        self.services.values().fold(Missing::default(), |sum, local| Missing {
            internal: sum.internal + local.missing.internal,
            external: sum.external + local.missing.external,
        })
    }
}

impl Local {
    /// None for a service of which nobody asks whether it has endpoints here.
    fn of(service: &Service, view: &View, node: &str) -> Option<Self> {
        let internal = service.internal_policy == TrafficPolicy::Local;
        let external = service.external_policy == TrafficPolicy::Local;
        if service.kind != ServiceKind::ClusterIp || service.foreign_proxy || !(internal || external) {
            return None;
        }
        let slices: Vec<&EndpointSlice> = view.slices_of(&service.name).collect();
        let endpoints = || slices.iter().flat_map(|slice| &slice.endpoints);
        let here = || endpoints().filter(|endpoint| *endpoint.node == *node);
        let ready: BTreeSet<IpAddr> = here().filter(|e| e.ready).map(|e| e.address).collect();
        let v4 = ready.iter().filter(|address| address.is_ipv4()).count();
        let none_here = endpoints().any(|e| e.ready || e.serving) && !here().any(|e| e.ready || e.serving);
        Some(Self {
            health_check_port: if external { service.health_check_port } else { 0 },
            ready: v4.max(ready.len() - v4),
            missing: Missing {
                internal: usize::from(internal && none_here),
                external: usize::from(external && none_here),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change as Told, Endpoint, Revision, Update};

    use super::*;

    /// What is done to the service.
    type Change = fn(&mut Service);

    /// Node, address, ready, serving.
    type Row = (&'static str, &'static str, bool, bool);

    fn endpoint((node, address, ready, serving): Row) -> Endpoint {
        Endpoint {
            ready,
            serving,
            terminating: serving && !ready,
            ..Endpoint::ready_at(address.parse().expect("an address"), node)
        }
    }

    fn locals(change: impl FnOnce(&mut Service), rows: &[Row]) -> Locals {
        let name = ObjectName::new("demo", "web");
        let mut service = Service {
            name: name.clone(),
            external_policy: TrafficPolicy::Local,
            health_check_port: 30_100,
            ..Service::default()
        };
        change(&mut service);
        let slice = |v4: bool| EndpointSlice {
            name: ObjectName::new("demo", if v4 { "web-4" } else { "web-6" }),
            service: "web".into(),
            endpoints: rows
                .iter()
                .map(|row| endpoint(*row))
                .filter(|endpoint| endpoint.address.is_ipv4() == v4)
                .collect(),
            ..EndpointSlice::default()
        };
        let slices = [true, false].map(|v4| Told::PutSlice(slice(v4)));
        let changes = std::iter::once(Told::PutService(service)).chain(slices).collect();
        let mut view = View::default();
        let revision = Revision { epoch: 1, sequence: 1 };
        let touched = view.apply(Update { revision, snapshot: true, changes });
        let mut locals = Locals::default();
        locals.update(&view, &touched, "here");
        locals
    }

    #[test]
    fn only_ready_endpoints_of_this_node_count_and_a_pod_of_two_families_once() {
        let rows: [(&[Row], usize, Missing); 4] = [
            (&[], 0, Missing::default()),
            (&[("here", "10.0.0.1", true, true), ("here", "fd00::1", true, true)], 1, Missing::default()),
            // Still serves what has begun, and a load balancer must go elsewhere.
            (&[("here", "10.0.0.1", false, true)], 0, Missing::default()),
            (&[("there", "10.0.0.2", true, true)], 0, Missing { internal: 0, external: 1 }),
        ];
        for (endpoints, ready, missing) in rows {
            let locals = locals(|_| {}, endpoints);
            assert_eq!(locals.at_port(30_100).map(|(_, ready)| ready), Some(ready), "{endpoints:?}");
            assert_eq!(locals.missing(), missing, "{endpoints:?}");
        }
    }

    #[test]
    fn a_port_is_asked_only_while_the_external_policy_is_local() {
        let all = TrafficPolicy::Cluster;
        let changes: [(&str, Change); 3] = [
            ("policy Cluster", |service| service.external_policy = TrafficPolicy::Cluster),
            ("another proxy's", |service| service.foreign_proxy = true),
            ("headless", |service| service.kind = ServiceKind::Headless),
        ];
        for (what, change) in changes {
            assert!(locals(change, &[]).ports().is_empty(), "{what}");
        }
        let internal = |service: &mut Service| {
            (service.external_policy, service.internal_policy) = (all, TrafficPolicy::Local);
        };
        let internal = locals(internal, &[("there", "10.0.0.2", true, true)]);
        assert!(internal.ports().is_empty());
        assert_eq!(internal.missing(), Missing { internal: 1, external: 0 });
    }

    #[test]
    fn a_port_that_passes_to_another_service_answers_for_that_one() {
        let mut view = View::default();
        let mut locals = Locals::default();
        let service = |name: &str, port| {
            Told::PutService(Service {
                name: ObjectName::new("demo", name),
                external_policy: TrafficPolicy::Local,
                health_check_port: port,
                ..Service::default()
            })
        };
        let updates = [
            vec![service("old", 30_100)],
            vec![service("new", 30_100)],
            vec![Told::DeleteService(ObjectName::new("demo", "old"))],
            vec![service("new", 30_101)],
        ];
        let mut answers = Vec::new();
        for changes in updates {
            let revision = Revision { epoch: 1, sequence: 1 };
            let touched = view.apply(Update { revision, snapshot: false, changes });
            locals.update(&view, &touched, "here");
            answers.push((
                locals.ports().into_iter().collect::<Vec<_>>(),
                locals.at_port(30_100).map(|(name, _)| name.name.to_string()),
            ));
        }
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(
            answers,
            [
                (vec![30_100], name("old")),
                (vec![30_100], name("new")),
                (vec![30_100], name("new")),
                (vec![30_101], None),
            ]
        );
    }
}
