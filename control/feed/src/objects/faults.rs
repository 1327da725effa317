//! What in an object means nothing and is left out, in words: one sentence for each place, with the field and what it says.
//!
//! Today's API servers refuse such objects, but keep those that are older than the check.

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};

use super::{address, port_number, prefix};

/// Texts of a field, each of which should be an address.
fn not_addresses<'a>(field: &str, texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let bad = texts.into_iter().filter(|text| address(text).is_none());
    bad.map(|text| format!("{field} has {text:?}, which is no address and is left out")).collect()
}

/// Numbers of a field, each of which should be a port.
fn not_ports(field: &str, numbers: impl IntoIterator<Item = i32>) -> Vec<String> {
    let bad = numbers.into_iter().filter(|number| port_number(*number).is_none());
    bad.map(|number| format!("{field} has {number}, which is no port and is left out")).collect()
}

fn not_networks<'a>(field: &str, texts: impl IntoIterator<Item = &'a String>, then: &str) -> Vec<String> {
    let bad = texts.into_iter().filter(|text| prefix(text).is_none());
    bad.map(|text| format!("{field} has {text:?}, which is no network (ADDRESS/LENGTH) and {then}")).collect()
}

pub(super) fn of_service(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let is_said = |text: &&String| !text.is_empty() && *text != "None";
    let own = match &spec.cluster_ips {
        Some(listed) => listed.iter().filter(is_said).collect::<Vec<_>>(),
        None => spec.cluster_ip.iter().filter(is_said).collect(),
    };
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.iter().flat_map(|status| status.ingress.iter().flatten());
    let ports = || spec.ports.iter().flatten();
    [
        not_addresses("spec.clusterIPs", own),
        not_addresses("spec.externalIPs", spec.external_ips.iter().flatten()),
        not_addresses("status.loadBalancer.ingress", ingress.filter_map(|ingress| ingress.ip.as_ref())),
        not_ports("spec.ports.port", ports().map(|port| port.port)),
        not_ports("spec.ports.nodePort", ports().filter_map(|port| port.node_port).filter(|port| *port != 0)),
        not_networks(
            "spec.loadBalancerSourceRanges",
            spec.load_balancer_source_ranges.iter().flatten(),
            "lets nobody in",
        ),
    ]
    .concat()
}

pub(super) fn of_slice(slice: &EndpointSlice) -> Vec<String> {
    if slice.address_type == "FQDN" {
        return Vec::new();
    }
    let first = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.addresses.first());
    let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
    [not_addresses("endpoints.addresses", first), not_ports("ports.port", ports)].concat()
}

pub(super) fn of_node(node: &Node) -> Vec<String> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP").map(|address| &address.address);
    let networks = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    [not_addresses("status.addresses", internal), not_networks("spec.podCIDRs", networks, "is left out")]
        .concat()
}

pub(super) fn of_service_networks(object: &ServiceCIDR) -> Vec<String> {
    let texts = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    not_networks("spec.cidrs", texts, "is left out")
}

pub(super) fn of_pod(pod: &Pod) -> Vec<String> {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    not_addresses("status.podIPs", addresses.map(|address| &address.ip))
}
