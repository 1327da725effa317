//! What is said about services in the modes with rules: whatever does not depend on how services are carried.

use std::collections::BTreeMap;

use fairlead_model::{ObjectName, View};

use crate::ebpf::{Problem, Scope, problems_of};

/// Problems of all services, looked for where something has changed.
#[derive(Clone, Debug, Default)]
pub struct Problems(BTreeMap<ObjectName, Vec<Problem>>);

impl Problems {
    /// Looks at what is in scope again.
    pub fn update(&mut self, view: &View, scope: Scope<'_>) {
        match scope {
            Scope::All => {
                self.0.clear();
                view.services().for_each(|service| self.look(view, &service.name));
            }
            Scope::Changed(changes) => changes.services.iter().for_each(|name| self.look(view, name)),
        }
    }

    /// Everything that is not as it was asked for.
    pub fn all(&self) -> Vec<Problem> {
        self.0.values().flatten().cloned().collect()
    }

    fn look(&mut self, view: &View, name: &ObjectName) {
        let mut problems = problems_of(view, name);
        problems.retain(is_of_every_mode);
        if problems.is_empty() {
            self.0.remove(name);
        } else {
            self.0.insert(name.clone(), problems);
        }
    }
}

/// Rules know no maps that are full and serve every node port; the rest is selected alike in every mode.
fn is_of_every_mode(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::ForeignFamily { .. }
            | Problem::Unrestricted { .. }
            | Problem::BadAddress { .. }
            | Problem::BadEndpoints { .. }
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use fairlead_model::{
        Change, Endpoint, EndpointPort, EndpointSlice, Prefix, Revision, Service, ServicePort, Update,
    };

    use super::*;
    use crate::Changes;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn service(change: impl FnOnce(&mut Service)) -> Change {
        let port = ServicePort { port: 80, node_port: 20_080, ..ServicePort::default() };
        let mut service = Service {
            name: ObjectName::new("demo", "echo"),
            addresses: vec![ip("10.96.0.20")],
            ports: vec![port],
            ..Service::default()
        };
        change(&mut service);
        Change::PutService(service)
    }

    fn slice(address: &str) -> Change {
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("demo", "echo-1"),
            service: "echo".into(),
            ports: vec![EndpointPort { port: 8080, ..EndpointPort::default() }],
            endpoints: vec![Endpoint::ready_at(ip(address), "n1")],
            triggered_unix_ns: 0,
        })
    }

    #[test]
    fn a_service_is_named_until_it_is_mended() {
        let everybody = Prefix { address: ip("fd00::"), length: 64 };
        let rows: [(Change, Change, &str); 4] = [
            (
                service(|s| s.external_addresses = vec![ip("224.0.0.9")]),
                service(|_| ()),
                "224.0.0.9 cannot be a service's address",
            ),
            (service(|s| s.external_addresses = vec![ip("fd00::1")]), service(|_| ()), "fd00::1 is left out"),
            (
                service(|s| {
                    s.load_balancer_addresses = vec![ip("192.0.2.1")];
                    s.source_ranges = vec![everybody];
                }),
                Change::DeleteService(ObjectName::new("demo", "echo")),
                "everybody may use it",
            ),
            (
                slice("127.0.0.1"),
                slice("10.244.0.2"),
                "1 of its endpoints have an address that cannot be one",
            ),
        ];
        for (bad, good, expected) in rows {
            let (mut view, mut problems) = (View::default(), Problems::default());
            let mut change = |changes: Vec<Change>, snapshot| {
                let revision = Revision { epoch: 1, sequence: 1 };
                let services = view.apply(Update { revision, snapshot, changes });
                let changes = Changes { services, ..Changes::default() };
                let scope = if snapshot { Scope::All } else { Scope::Changed(&changes) };
                problems.update(&view, scope);
                problems.all().iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(
                change(vec![service(|_| ())], true),
                Vec::<String>::new(),
                "a node port of any number"
            );
            let said = change(vec![bad], false);
            assert_eq!(said.len(), 1, "{expected}: {said:?}");
            assert!(said[0].starts_with("service demo/echo: ") && said[0].contains(expected), "{said:?}");
            assert_eq!(change(vec![good], false), Vec::<String>::new());
        }
    }
}
