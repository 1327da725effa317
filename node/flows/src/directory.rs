//! Names of service and node addresses. (Pods are found by the view itself.)

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use fairlead_model::{ObjectName, View};

/// Services and nodes by address.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    services: HashMap<IpAddr, ObjectName>,
    addresses_of: HashMap<ObjectName, Vec<IpAddr>>,
    nodes: HashMap<IpAddr, String>,
}

impl Directory {
    /// Looks again at these services.
    pub fn update_services(&mut self, view: &View, touched: &BTreeSet<ObjectName>) {
        for name in touched {
            for address in self.addresses_of.remove(name).unwrap_or_default() {
                if self.services.get(&address) == Some(name) {
                    self.services.remove(&address);
                }
            }
        }
        for service in touched.iter().filter_map(|name| view.service(name)) {
            self.services.extend(service.addresses.iter().map(|address| (*address, service.name.clone())));
            self.addresses_of.insert(service.name.clone(), service.addresses.clone());
        }
    }

    /// Looks again at all nodes.
    pub fn update_nodes(&mut self, view: &View) {
        let addresses = view.nodes().flat_map(|node| node.addresses.iter().map(|a| (*a, node.name.clone())));
        self.nodes = addresses.collect();
    }

    /// The service with this address.
    pub fn service(&self, address: IpAddr) -> Option<&ObjectName> {
        self.services.get(&address)
    }

    /// The node with this address.
    pub fn node(&self, address: IpAddr) -> Option<&str> {
        self.nodes.get(&address).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change, Revision, Service, Update};

    use super::*;

    #[test]
    fn an_address_that_passes_to_another_service_is_found_under_the_new_name() {
        let address = IpAddr::from([10, 96, 0, 9]);
        let service = |name: &str| {
            let name = ObjectName::new("demo", name);
            Change::PutService(Service { name, addresses: vec![address], ..Service::default() })
        };
        let mut view = View::default();
        let mut directory = Directory::default();
        let revision = Revision { epoch: 1, sequence: 1 };
        for changes in
            [vec![service("z")], vec![Change::DeleteService(ObjectName::new("demo", "z")), service("a")]]
        {
            let touched = view.apply(Update { revision, snapshot: false, changes });
            directory.update_services(&view, &touched);
        }
        assert_eq!(directory.service(address), Some(&ObjectName::new("demo", "a")));
    }
}
