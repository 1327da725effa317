//! Endpoint slices of services with a selector, from the state of the pods.

mod endpoints;
mod spread;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};

use crate::{
    cache::{Caches, Key, Touched},
    driver::Controller,
    meta::{holds, is_deleting},
    plan::{Plan, Write},
};

/// On a slice: its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// On a slice: who writes it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// This controller, as upstream's is called.
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// On the slices of a service without a cluster address.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// On a slice: when the change happened that led to it.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

const ZONE: &str = "topology.kubernetes.io/zone";

/// An address family, as slices name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The controller.
#[derive(Debug, Default)]
pub struct EndpointSlices;

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn keys(&self, view: &Caches, touched: &Touched) -> Vec<Key> {
        match touched {
            Touched::Service(changed) => vec![Key::of(changed.latest())],
            Touched::EndpointSlice(changed) => changed.sides().filter_map(key_of_slice).collect(),
            Touched::Pod(changed) => {
                let namespace = changed.latest().metadata.namespace.clone().unwrap_or_default();
                let services = view.services.in_namespace(&namespace);
                let concerned =
                    |service: &&std::sync::Arc<Service>| changed.sides().any(|pod| selected(service, pod));
                services.iter().filter(concerned).map(|service| Key::of(service.as_ref())).collect()
            }
            Touched::Node(changed) => {
                let zone = |node: &k8s_openapi::api::core::v1::Node| {
                    node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned()
                };
                let zones = (changed.old.as_deref().map(zone), changed.new.as_deref().map(zone));
                let moved = matches!(&zones, (Some(old), Some(new)) if old != new)
                    || matches!(&zones, (None, Some(Some(_))));
                let services = if moved { view.services.all() } else { Vec::new() };
                services.iter().map(|service| Key::of(service.as_ref())).collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &Caches, key: &Key, now: Timestamp) -> Plan {
        let slices = view.slices.in_namespace(&key.namespace);
        let own = slices.iter().filter(|slice| {
            is_managed(slice) && key_of_slice(slice).as_ref() == Some(key) && !is_deleting(&slice.metadata)
        });
        let own: Vec<&EndpointSlice> = own.map(AsRef::as_ref).collect();
        let service = view.services.get(key).filter(|service| !is_deleting(&service.metadata));
        let Some(service) = service else {
            let writes = own.into_iter().map(|slice| Write::delete(slice, None)).collect();
            return Plan { writes, again_in: None };
        };
        if selector(&service).is_none() {
            // Its endpoints are somebody else's business.
            return Plan::default();
        }
        let pods = view.pods.in_namespace(&key.namespace);
        let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).filter(|pod| selected(&service, pod)).collect();
        let zone = |node: &str| {
            let node = view.nodes.get(&Key::new("", node))?;
            node.metadata.labels.as_ref()?.get(ZONE).cloned()
        };
        let mut writes = Vec::new();
        let families = families(&service, &pods);
        for family in &families {
            let groups = endpoints::groups(&service, &pods, *family, &zone);
            let own = own.iter().copied().filter(|slice| slice.address_type == family.as_str());
            writes.extend(spread::spread(&service, *family, groups, own.collect(), now));
        }
        let of_other_family =
            |slice: &&&EndpointSlice| families.iter().all(|family| slice.address_type != family.as_str());
        writes.extend(own.iter().filter(of_other_family).map(|slice| Write::delete(*slice, None)));
        Plan { writes, again_in: None }
    }
}

fn is_managed(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

fn key_of_slice(slice: &EndpointSlice) -> Option<Key> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), service))
}

/// The selector of a service that has one and whose endpoints are pods.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let alias = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && !alias)
}

fn selected(service: &Service, pod: &Pod) -> bool {
    let selector = selector(service);
    selector.is_some_and(|selector| holds(selector, pod.metadata.labels.as_ref()))
}

/// The families of a service: what it says, else what its addresses are, else what its pods have.
fn families(service: &Service, pods: &[&Pod]) -> Vec<Family> {
    let spec = service.spec.clone().unwrap_or_default();
    let said: Vec<Family> = spec
        .ip_families
        .iter()
        .flatten()
        .map(|family| if family == "IPv6" { Family::V6 } else { Family::V4 })
        .collect();
    if !said.is_empty() {
        return said;
    }
    let family = |address: &str| match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => Some(Family::V4),
        Ok(std::net::IpAddr::V6(_)) => Some(Family::V6),
        Err(_) => None,
    };
    let own = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    let mut found: Vec<Family> = own.iter().filter_map(|address| family(address)).collect();
    if found.is_empty() {
        let addresses = pods.iter().flat_map(|pod| endpoints::addresses(pod));
        found = addresses.filter_map(|address| family(&address)).collect();
    }
    found.sort();
    found.dedup();
    if found.is_empty() { vec![Family::V4] } else { found }
}

#[cfg(test)]
mod tests;
