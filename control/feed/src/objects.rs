//! API objects as values of the model, one function per kind. Pure.

use std::net::IpAddr;

use fairlead_model as model;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Node, Pod, PodSpec, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
        networking::v1::ServiceCIDR,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use model::{Change, ObjectName};

mod faults;

/// Names the proxy that carries a service; set, it is not this one.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// On a service or slice that no proxy carries.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// On a slice: its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// On a service: how a backend is chosen, `random` (the default) or `maglev`.
const ALGORITHM_ANNOTATION: &str = "fairlead.io/load-balancing";

/// On a slice: when what it follows from has changed (RFC 3339).
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The cluster autoscaler's mark on a node that it is about to delete.
const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Upstream's default for `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_DEFAULT_SECS: u32 = 10_800;

/// A kind of API object that ends up in the feed.
pub trait Indexed {
    /// Which of them.
    const KIND: Kind;

    /// What the object's existence in this state means to readers: a put, or a delete when there is nothing to tell.
    fn put(&self) -> Change;

    /// What its absence means.
    fn delete(&self) -> Change;

    /// What in it means nothing and is left out, in words.
    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The kinds that the feed is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Namespaces.
    Namespace,
    /// Nodes.
    Node,
    /// Endpoint slices.
    Slice,
    /// Services.
    Service,
    /// Pods.
    Pod,
    /// Networks of services' addresses.
    ServiceNetworks,
    /// The ConfigMap of the DNS servers.
    Corefile,
}

impl Kind {
    /// Those without which nothing is complete; networks of services and a Corefile need not be there, nor
    /// may everybody read them.
    pub const ALL: [Self; 5] = [Self::Namespace, Self::Node, Self::Slice, Self::Service, Self::Pod];

    /// The kind and key that a change is about; cluster-wide names have an empty namespace.
    pub fn of(change: &Change) -> (Self, ObjectName) {
        let cluster_wide = |name: &String| ObjectName::new("", name);
        match change {
            Change::PutService(service) => (Self::Service, service.name.clone()),
            Change::DeleteService(name) => (Self::Service, name.clone()),
            Change::PutSlice(slice) => (Self::Slice, slice.name.clone()),
            Change::DeleteSlice(name) => (Self::Slice, name.clone()),
            Change::PutNode(node) => (Self::Node, cluster_wide(&node.name)),
            Change::DeleteNode(name) => (Self::Node, cluster_wide(name)),
            Change::PutPod(pod) => (Self::Pod, pod.name.clone()),
            Change::DeletePod(name) => (Self::Pod, name.clone()),
            Change::PutNamespace(name) | Change::DeleteNamespace(name) => {
                (Self::Namespace, cluster_wide(name))
            }
            Change::PutServiceNetworks { name, .. } | Change::DeleteServiceNetworks(name) => {
                (Self::ServiceNetworks, cluster_wide(name))
            }
            Change::PutCorefile(_) | Change::DeleteCorefile => (Self::Corefile, corefile_name()),
        }
    }

    /// The deletion of an object of this kind.
    pub fn deletion(self, name: ObjectName) -> Change {
        match self {
            Self::Service => Change::DeleteService(name),
            Self::Slice => Change::DeleteSlice(name),
            Self::Pod => Change::DeletePod(name),
            Self::Node => Change::DeleteNode(name.name.to_string()),
            Self::Namespace => Change::DeleteNamespace(name.name.to_string()),
            Self::ServiceNetworks => Change::DeleteServiceNetworks(name.name.to_string()),
            Self::Corefile => Change::DeleteCorefile,
        }
    }
}

/// Where kubeadm keeps the Corefile.
pub(crate) fn corefile_name() -> ObjectName {
    ObjectName::new("kube-system", "coredns")
}

fn object_name(meta: &ObjectMeta) -> ObjectName {
    ObjectName::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    meta.labels.as_ref()?.get(key)
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Addresses that parse.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(address).collect()
}

/// An address as users write it: objects older than today's validation may have white space around it, and decimal
/// numbers with leading zeros in it (upstream's `ParseIPSloppy`).
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let octets: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
    })
}

fn protocol(text: Option<&str>) -> model::Protocol {
    match text {
        Some("UDP") => model::Protocol::Udp,
        Some("SCTP") => model::Protocol::Sctp,
        _ => model::Protocol::Tcp,
    }
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

impl Indexed for ConfigMap {
    const KIND: Kind = Kind::Corefile;

    fn put(&self) -> Change {
        let text = self.data.as_ref().and_then(|data| data.get("Corefile"));
        text.map_or(Change::DeleteCorefile, |text| Change::PutCorefile(text.clone()))
    }

    fn delete(&self) -> Change {
        Change::DeleteCorefile
    }
}

impl Indexed for Namespace {
    const KIND: Kind = Kind::Namespace;

    fn put(&self) -> Change {
        Change::PutNamespace(self.metadata.name.clone().unwrap_or_default())
    }

    fn delete(&self) -> Change {
        Change::DeleteNamespace(self.metadata.name.clone().unwrap_or_default())
    }
}

impl Indexed for ServiceCIDR {
    const KIND: Kind = Kind::ServiceNetworks;

    fn put(&self) -> Change {
        let texts = self.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        Change::PutServiceNetworks {
            name: self.metadata.name.clone().unwrap_or_default(),
            networks: texts.filter_map(|text| prefix(text)).collect(),
        }
    }

    fn delete(&self) -> Change {
        Change::DeleteServiceNetworks(self.metadata.name.clone().unwrap_or_default())
    }

    fn faults(&self) -> Vec<String> {
        faults::of_service_networks(self)
    }
}

impl Indexed for Service {
    const KIND: Kind = Kind::Service;

    fn put(&self) -> Change {
        let spec = self.spec.clone().unwrap_or_default();
        let listed = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let kind = match spec.type_.as_deref() {
            Some("ExternalName") => model::ServiceKind::ExternalName(spec.external_name.unwrap_or_default()),
            _ if listed.iter().any(|ip| ip == "None") => model::ServiceKind::Headless,
            _ => model::ServiceKind::ClusterIp,
        };
        let affinity_secs = match spec.session_affinity.as_deref() {
            Some("ClientIP") => {
                let client = spec.session_affinity_config.and_then(|config| config.client_ip);
                let secs = client.and_then(|client| client.timeout_seconds);
                secs.and_then(|secs| u32::try_from(secs).ok()).unwrap_or(AFFINITY_DEFAULT_SECS)
            }
            _ => 0,
        };
        let algorithm = match annotation(&self.metadata, ALGORITHM_ANNOTATION) {
            Some("maglev") => model::Algorithm::Maglev,
            _ => model::Algorithm::Random,
        };
        let load_balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress =
            load_balancer.and_then(|load_balancer| load_balancer.ingress.as_deref()).unwrap_or_default();
        // A proxying load balancer wants to see the traffic of the cluster's own clients, too.
        let virtual_ones = ingress.iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let distribution = match spec.traffic_distribution.as_deref() {
            Some("PreferSameNode") => model::TrafficDistribution::SameNode,
            Some("PreferSameZone" | "PreferClose") => model::TrafficDistribution::SameZone,
            _ => model::TrafficDistribution::Any,
        };
        let has_addresses = kind == model::ServiceKind::ClusterIp;
        let foreign = [PROXY_NAME_LABEL, HEADLESS_LABEL];
        Change::PutService(model::Service {
            name: object_name(&self.metadata),
            addresses: addresses(listed.iter().map(String::as_str).filter(|_| has_addresses)),
            kind,
            ports: spec.ports.unwrap_or_default().iter().filter_map(service_port).collect(),
            external_addresses: addresses(spec.external_ips.iter().flatten().map(String::as_str)),
            load_balancer_addresses: addresses(virtual_ones.filter_map(|ingress| ingress.ip.as_deref())),
            source_ranges: source_ranges(spec.load_balancer_source_ranges.as_deref().unwrap_or_default()),
            internal_policy: policy(spec.internal_traffic_policy.as_deref()),
            external_policy: policy(spec.external_traffic_policy.as_deref()),
            health_check_port: spec.health_check_node_port.and_then(port_number).unwrap_or_default(),
            algorithm,
            distribution,
            affinity_secs,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            foreign_proxy: foreign.into_iter().any(|key| label(&self.metadata, key).is_some()),
        })
    }

    fn delete(&self) -> Change {
        Change::DeleteService(object_name(&self.metadata))
    }

    fn faults(&self) -> Vec<String> {
        faults::of_service(self)
    }
}

fn policy(text: Option<&str>) -> model::TrafficPolicy {
    if text == Some("Local") { model::TrafficPolicy::Local } else { model::TrafficPolicy::Cluster }
}

fn service_port(port: &ServicePort) -> Option<model::ServicePort> {
    Some(model::ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref()),
        port: port_number(port.port)?,
        node_port: port.node_port.and_then(port_number).unwrap_or_default(),
    })
}

impl Indexed for EndpointSlice {
    const KIND: Kind = Kind::Slice;

    fn put(&self) -> Change {
        let service = label(&self.metadata, SERVICE_NAME_LABEL).filter(|name| !name.is_empty());
        let Some(service) = service.filter(|_| self.address_type != "FQDN") else { return self.delete() };
        Change::PutSlice(model::EndpointSlice {
            name: object_name(&self.metadata),
            service: service.clone(),
            ports: self.ports.iter().flatten().filter_map(endpoint_port).collect(),
            endpoints: self.endpoints.iter().flatten().filter_map(endpoint).collect(),
            triggered_unix_ns: annotation(&self.metadata, TRIGGER_ANNOTATION).map_or(0, unix_ns),
        })
    }

    fn delete(&self) -> Change {
        Change::DeleteSlice(object_name(&self.metadata))
    }

    fn faults(&self) -> Vec<String> {
        faults::of_slice(self)
    }
}

/// 0 for what is not a time after 1970.
fn unix_ns(rfc3339: &str) -> u64 {
    let time = rfc3339.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_nanosecond);
    time.ok().and_then(|ns| u64::try_from(ns).ok()).unwrap_or_default()
}

/// A port without a number means "all ports", which no service of ours can use.
fn endpoint_port(port: &EndpointPort) -> Option<model::EndpointPort> {
    Some(model::EndpointPort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref()),
        port: port_number(port.port?)?,
    })
}

/// Conditions that are unset count as ready, serving (as ready says) and not terminating (discovery/v1 types).
fn endpoint(endpoint: &Endpoint) -> Option<model::Endpoint> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    Some(model::Endpoint {
        address: address(endpoint.addresses.first()?)?,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.as_deref().unwrap_or_default().into(),
        zone: endpoint.zone.as_deref().unwrap_or_default().into(),
        hostname: endpoint.hostname.as_deref().unwrap_or_default().into(),
        pod: pod.and_then(|target| target.name.as_deref()).unwrap_or_default().into(),
        hint_nodes: hints.for_nodes.into_iter().flatten().map(|hint| hint.name).collect(),
        hint_zones: hints.for_zones.into_iter().flatten().map(|hint| hint.name).collect(),
    })
}

impl Indexed for Node {
    const KIND: Kind = Kind::Node;

    fn put(&self) -> Change {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let networks = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        let internal = status.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
        let mut found = addresses(internal.map(|address| address.address.as_str()));
        let mut families = [false; 2];
        found.retain(|address| !std::mem::replace(&mut families[usize::from(address.is_ipv6())], true));
        let ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        Change::PutNode(model::Node {
            name: self.metadata.name.clone().unwrap_or_default(),
            addresses: found,
            pod_networks: networks.iter().filter_map(|text| prefix(text)).collect(),
            zone: label(&self.metadata, ZONE_LABEL).cloned().unwrap_or_default(),
            ready: status.conditions.iter().flatten().any(ready),
            leaving: self.metadata.deletion_timestamp.is_some()
                || spec.taints.iter().flatten().any(|taint| taint.key == AUTOSCALER_TAINT),
        })
    }

    fn delete(&self) -> Change {
        Change::DeleteNode(self.metadata.name.clone().unwrap_or_default())
    }

    fn faults(&self) -> Vec<String> {
        faults::of_node(self)
    }
}

fn prefix(text: &str) -> Option<model::Prefix> {
    let (network, length) = text.trim().split_once('/')?;
    let address = address(network)?;
    let length: u8 = length.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (length <= bits).then_some(model::Prefix { address, length })
}

/// The networks whose clients may use a load balancer. One that does not parse was meant to restrict something, so it
/// becomes a network of each family that nobody is in: the highest address of each is never a source (RFC 1122 section
/// 3.2.1.3, RFC 4291 section 2.7).
fn source_ranges(texts: &[String]) -> Vec<model::Prefix> {
    let mut ranges: Vec<_> = texts.iter().filter_map(|text| prefix(text)).collect();
    if ranges.len() < texts.len() {
        let nobody = |address, length| model::Prefix { address, length };
        ranges.push(nobody(IpAddr::from([u8::MAX; 4]), 32));
        ranges.push(nobody(IpAddr::from([u8::MAX; 16]), 128));
    }
    ranges
}

impl Indexed for Pod {
    const KIND: Kind = Kind::Pod;

    /// A pod without addresses, or one that has finished and given them back, is no longer told.
    fn put(&self) -> Change {
        let spec = self.spec.as_ref();
        let status = self.status.clone().unwrap_or_default();
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let listed: Vec<_> = match status.pod_ips {
            Some(ips) if !ips.is_empty() => ips.into_iter().map(|ip| ip.ip).collect(),
            _ => status.pod_ip.into_iter().collect(),
        };
        let addresses = addresses(listed.iter().map(String::as_str));
        if finished || addresses.is_empty() {
            return self.delete();
        }
        let host_network = spec.and_then(|spec| spec.host_network).unwrap_or_default();
        let host_ports = spec.filter(|_| !host_network).map(host_ports).unwrap_or_default();
        Change::PutPod(model::Pod {
            name: object_name(&self.metadata),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            addresses,
            host_network,
            host_ports,
        })
    }

    fn delete(&self) -> Change {
        Change::DeletePod(object_name(&self.metadata))
    }

    fn faults(&self) -> Vec<String> {
        faults::of_pod(self)
    }
}

/// Init containers that keep running (`restartPolicy: Always`) have ports, too.
fn host_ports(spec: &PodSpec) -> Vec<model::HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut host_ports: Vec<_> = ports
        .filter_map(|port| {
            let listed = port.host_ip.as_deref().and_then(address);
            Some(model::HostPort {
                address: listed.filter(|address| !address.is_unspecified()),
                protocol: protocol(port.protocol.as_deref()),
                port: port_number(port.host_port?)?,
                pod_port: port_number(port.container_port)?,
            })
        })
        .collect();
    host_ports.sort();
    host_ports
}

#[cfg(test)]
mod tests;
