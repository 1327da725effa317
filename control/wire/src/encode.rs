//! Model to messages. Cannot fail.

use std::net::IpAddr;

use fairlead_model as model;

use crate::proto;

/// The 4 or 16 bytes of an address, network order.
fn address(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn addresses(list: &[IpAddr]) -> Vec<Vec<u8>> {
    list.iter().map(address).collect()
}

impl From<model::Revision> for proto::Revision {
    fn from(revision: model::Revision) -> Self {
        Self { epoch: revision.epoch, sequence: revision.sequence }
    }
}

impl From<model::ObjectName> for proto::ObjectName {
    fn from(name: model::ObjectName) -> Self {
        Self { namespace: name.namespace.to_string(), name: name.name.to_string() }
    }
}

impl From<model::Protocol> for proto::Protocol {
    fn from(protocol: model::Protocol) -> Self {
        match protocol {
            model::Protocol::Tcp => Self::Tcp,
            model::Protocol::Udp => Self::Udp,
            model::Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<model::ServicePort> for proto::Port {
    fn from(port: model::ServicePort) -> Self {
        let protocol = proto::Protocol::from(port.protocol).into();
        Self { name: port.name, protocol, port: port.port.into(), node_port: port.node_port.into() }
    }
}

impl From<model::TrafficPolicy> for proto::TrafficPolicy {
    fn from(policy: model::TrafficPolicy) -> Self {
        match policy {
            model::TrafficPolicy::Cluster => Self::Cluster,
            model::TrafficPolicy::Local => Self::Local,
        }
    }
}

impl From<&model::Prefix> for proto::Prefix {
    fn from(prefix: &model::Prefix) -> Self {
        Self { address: address(&prefix.address), length: prefix.length.into() }
    }
}

impl From<model::HostPort> for proto::HostPort {
    fn from(port: model::HostPort) -> Self {
        Self {
            address: port.address.as_ref().map(address).unwrap_or_default(),
            protocol: proto::Protocol::from(port.protocol).into(),
            port: port.port.into(),
            pod_port: port.pod_port.into(),
        }
    }
}

impl From<model::EndpointPort> for proto::Port {
    fn from(port: model::EndpointPort) -> Self {
        let protocol = proto::Protocol::from(port.protocol).into();
        Self { name: port.name, protocol, port: port.port.into(), node_port: 0 }
    }
}

impl From<model::Service> for proto::Service {
    fn from(service: model::Service) -> Self {
        let (kind, external_name) = match service.kind {
            model::ServiceKind::ClusterIp => (proto::ServiceKind::ClusterIp, String::new()),
            model::ServiceKind::Headless => (proto::ServiceKind::Headless, String::new()),
            model::ServiceKind::ExternalName(name) => (proto::ServiceKind::ExternalName, name),
        };
        let algorithm = match service.algorithm {
            model::Algorithm::Random => proto::Algorithm::Random,
            model::Algorithm::Maglev => proto::Algorithm::Maglev,
        };
        let distribution = match service.distribution {
            model::TrafficDistribution::Any => proto::TrafficDistribution::Any,
            model::TrafficDistribution::SameZone => proto::TrafficDistribution::SameZone,
            model::TrafficDistribution::SameNode => proto::TrafficDistribution::SameNode,
        };
        Self {
            name: Some(service.name.into()),
            kind: kind.into(),
            external_name,
            addresses: addresses(&service.addresses),
            ports: service.ports.into_iter().map(Into::into).collect(),
            internal_policy: proto::TrafficPolicy::from(service.internal_policy).into(),
            distribution: distribution.into(),
            affinity_secs: service.affinity_secs,
            publish_not_ready: service.publish_not_ready,
            foreign_proxy: service.foreign_proxy,
            external_addresses: addresses(&service.external_addresses),
            load_balancer_addresses: addresses(&service.load_balancer_addresses),
            source_ranges: service.source_ranges.iter().map(Into::into).collect(),
            external_policy: proto::TrafficPolicy::from(service.external_policy).into(),
            health_check_port: service.health_check_port.into(),
            algorithm: algorithm.into(),
        }
    }
}

impl From<model::Endpoint> for proto::Endpoint {
    fn from(endpoint: model::Endpoint) -> Self {
        Self {
            address: address(&endpoint.address),
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            node: endpoint.node.to_string(),
            zone: endpoint.zone.to_string(),
            hostname: endpoint.hostname.into(),
            pod: endpoint.pod.into(),
            hint_nodes: endpoint.hint_nodes.into(),
            hint_zones: endpoint.hint_zones.into(),
        }
    }
}

impl From<model::EndpointSlice> for proto::EndpointSlice {
    fn from(slice: model::EndpointSlice) -> Self {
        Self {
            name: Some(slice.name.into()),
            service: slice.service,
            ports: slice.ports.into_iter().map(Into::into).collect(),
            endpoints: slice.endpoints.into_iter().map(Into::into).collect(),
            triggered_unix_ns: slice.triggered_unix_ns,
        }
    }
}

impl From<model::Node> for proto::Node {
    fn from(node: model::Node) -> Self {
        Self {
            name: node.name,
            addresses: addresses(&node.addresses),
            pod_networks: node.pod_networks.iter().map(Into::into).collect(),
            zone: node.zone,
            ready: node.ready,
            leaving: node.leaving,
        }
    }
}

impl From<model::Pod> for proto::Pod {
    fn from(pod: model::Pod) -> Self {
        Self {
            name: Some(pod.name.into()),
            uid: pod.uid,
            node: pod.node,
            addresses: addresses(&pod.addresses),
            host_network: pod.host_network,
            host_ports: pod.host_ports.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<model::Change> for proto::Change {
    fn from(change: model::Change) -> Self {
        use proto::change::Change as Wire;
        let change = match change {
            model::Change::PutService(service) => Wire::PutService(service.into()),
            model::Change::DeleteService(name) => Wire::DeleteService(name.into()),
            model::Change::PutSlice(slice) => Wire::PutSlice(slice.into()),
            model::Change::DeleteSlice(name) => Wire::DeleteSlice(name.into()),
            model::Change::PutNode(node) => Wire::PutNode(node.into()),
            model::Change::DeleteNode(name) => Wire::DeleteNode(name),
            model::Change::PutPod(pod) => Wire::PutPod(pod.into()),
            model::Change::DeletePod(name) => Wire::DeletePod(name.into()),
            model::Change::PutNamespace(name) => Wire::PutNamespace(name),
            model::Change::DeleteNamespace(name) => Wire::DeleteNamespace(name),
            model::Change::PutServiceNetworks { name, networks } => {
                let networks = networks.iter().map(Into::into).collect();
                Wire::PutServiceNetworks(proto::ServiceNetworks { name, networks })
            }
            model::Change::DeleteServiceNetworks(name) => Wire::DeleteServiceNetworks(name),
            model::Change::PutCorefile(text) => Wire::PutCorefile(text),
            model::Change::DeleteCorefile => Wire::DeleteCorefile(true),
        };
        Self { change: Some(change) }
    }
}
