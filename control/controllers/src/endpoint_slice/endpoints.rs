//! Pods as endpoints, grouped by the ports they have.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Container, ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};

use super::Family;
use crate::{meta::is_deleting, pods};

/// Ports as a value that can be compared: name, protocol, number, application protocol.
pub(super) type Ports = Vec<(String, String, i32, Option<String>)>;

/// An endpoint and when it became what it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) endpoint: Endpoint,
    pub(super) since: Option<Timestamp>,
}

/// The endpoints of one family by their ports. Pods with a named port of different numbers are in different groups.
pub(super) fn groups(
    service: &Service,
    pods: &[&Pod],
    family: Family,
    zone: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<Ports, Vec<Candidate>> {
    let mut groups = BTreeMap::<Ports, Vec<Candidate>>::new();
    for pod in pods.iter().filter(|pod| !pods::is_finished(pod)) {
        let Some(address) = address(pod, family) else { continue };
        let endpoint = endpoint(service, pod, address, zone);
        let candidate = Candidate { endpoint, since: since(pod) };
        groups.entry(ports(service, pod)).or_default().push(candidate);
    }
    groups
}

/// The addresses of a pod.
pub(super) fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let listed = status.and_then(|status| status.pod_ips.as_ref()).filter(|ips| !ips.is_empty());
    match listed {
        Some(ips) => ips.iter().map(|ip| ip.ip.clone()).collect(),
        None => status.and_then(|status| status.pod_ip.clone()).into_iter().collect(),
    }
}

fn address(pod: &Pod, family: Family) -> Option<String> {
    addresses(pod).into_iter().find(|address| match address.parse() {
        Ok(IpAddr::V4(_)) => family == Family::V4,
        Ok(IpAddr::V6(_)) => family == Family::V6,
        Err(_) => false,
    })
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let meta = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let serving = pods::is_ready(pod);
    let terminating = is_deleting(meta);
    let in_subdomain = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && meta.namespace == service.metadata.namespace;
    let node = pods::node(pod);
    let zone = node.and_then(zone);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.filter(|name| in_subdomain && !name.is_empty()),
        hints: hints(service, node, zone.as_deref()),
        node_name: node.map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// Whom the endpoint is meant for by the service's `trafficDistribution` (KEP-4444, KEP-3015). Each endpoint says it for
/// itself: who reads hints goes by them only where every ready endpoint has one, so that one without a zone ends the
/// preference of all, and no slice but its own is written for it.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let (by_node, by_zone) = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferSameNode" => (node, zone),
        "PreferSameZone" | "PreferClose" => (None, zone),
        _ => (None, None),
    };
    let hints = EndpointHints {
        for_nodes: by_node.map(|name| vec![ForNode { name: name.to_owned() }]),
        for_zones: by_zone.map(|name| vec![ForZone { name: name.to_owned() }]),
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// When the pod last changed in a way that endpoints show.
fn since(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| {
        let begun = time.0.checked_sub(k8s_openapi::jiff::SignedDuration::from_secs(grace));
        begun.unwrap_or(time.0)
    });
    ready.map(|time| time.0).max(deleted)
}

fn ports(service: &Service, pod: &Pod) -> Ports {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let of = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let number = number(port, &protocol, pod)?;
        Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
    };
    ports.filter_map(of).collect()
}

/// The port on the pod that a service's port leads to. A name is looked up among the pod's containers.
fn number(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let mut ports =
                spec.containers.iter().chain(sidecars).flat_map(|one: &Container| one.ports.iter().flatten());
            let same = |own: &&k8s_openapi::api::core::v1::ContainerPort| {
                own.name.as_ref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(same).map(|own| own.container_port)
        }
    }
}

/// Ports as a slice lists them.
pub(super) fn endpoint_ports(ports: &Ports) -> Vec<EndpointPort> {
    let port = |(name, protocol, number, app): &(String, String, i32, Option<String>)| EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.clone()),
        port: Some(*number),
        app_protocol: app.clone(),
    };
    ports.iter().map(port).collect()
}

/// Ports of a slice, to be compared with a group's.
pub(super) fn ports_of(listed: &[EndpointPort]) -> Ports {
    let port = |port: &EndpointPort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (port.name.clone().unwrap_or_default(), protocol, port.port.unwrap_or(0), port.app_protocol.clone())
    };
    listed.iter().map(port).collect()
}
