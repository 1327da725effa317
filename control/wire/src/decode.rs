//! Messages to model. Everything that arrives is checked; nothing panics.

use std::net::IpAddr;

use fairlead_model as model;

use crate::{WireError, proto};

fn address(bytes: &[u8], field: &'static str) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes);
    v6.map(IpAddr::from).map_err(|_| WireError::AddressLength { field, length: bytes.len() })
}

fn addresses(list: &[Vec<u8>], field: &'static str) -> Result<Vec<IpAddr>, WireError> {
    list.iter().map(|bytes| address(bytes, field)).collect()
}

fn name(name: Option<proto::ObjectName>, field: &'static str) -> Result<model::ObjectName, WireError> {
    name.map(Into::into).ok_or(WireError::Missing { field })
}

fn known<T: TryFrom<i32>>(value: i32, field: &'static str) -> Result<T, WireError> {
    T::try_from(value).map_err(|_| WireError::OutOfRange { field, value: value.into() })
}

fn all<T, U: TryFrom<T, Error = WireError>>(list: Vec<T>) -> Result<Vec<U>, WireError> {
    list.into_iter().map(U::try_from).collect()
}

impl From<proto::Revision> for model::Revision {
    fn from(revision: proto::Revision) -> Self {
        Self { epoch: revision.epoch, sequence: revision.sequence }
    }
}

impl From<proto::ObjectName> for model::ObjectName {
    fn from(name: proto::ObjectName) -> Self {
        Self::new(name.namespace, name.name)
    }
}

impl From<proto::Protocol> for model::Protocol {
    fn from(protocol: proto::Protocol) -> Self {
        match protocol {
            proto::Protocol::Tcp => Self::Tcp,
            proto::Protocol::Udp => Self::Udp,
            proto::Protocol::Sctp => Self::Sctp,
        }
    }
}

/// Protocol and number of a port.
fn port(port: &proto::Port) -> Result<(model::Protocol, u16), WireError> {
    let protocol = known::<proto::Protocol>(port.protocol, "Port.protocol")?.into();
    Ok((protocol, port_number(port.port, "Port.port")?))
}

fn port_number(number: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(number).map_err(|_| WireError::OutOfRange { field, value: number.into() })
}

fn policy(value: i32, field: &'static str) -> Result<model::TrafficPolicy, WireError> {
    Ok(match known::<proto::TrafficPolicy>(value, field)? {
        proto::TrafficPolicy::Cluster => model::TrafficPolicy::Cluster,
        proto::TrafficPolicy::Local => model::TrafficPolicy::Local,
    })
}

impl TryFrom<proto::Port> for model::ServicePort {
    type Error = WireError;

    fn try_from(wire: proto::Port) -> Result<Self, WireError> {
        let (protocol, port) = port(&wire)?;
        Ok(Self {
            name: wire.name,
            protocol,
            port,
            node_port: port_number(wire.node_port, "Port.node_port")?,
        })
    }
}

impl TryFrom<proto::Port> for model::EndpointPort {
    type Error = WireError;

    fn try_from(wire: proto::Port) -> Result<Self, WireError> {
        let (protocol, port) = port(&wire)?;
        Ok(Self { name: wire.name, protocol, port })
    }
}

impl TryFrom<proto::Service> for model::Service {
    type Error = WireError;

    fn try_from(wire: proto::Service) -> Result<Self, WireError> {
        let kind = match known::<proto::ServiceKind>(wire.kind, "Service.kind")? {
            proto::ServiceKind::ClusterIp => model::ServiceKind::ClusterIp,
            proto::ServiceKind::Headless => model::ServiceKind::Headless,
            proto::ServiceKind::ExternalName => model::ServiceKind::ExternalName(wire.external_name),
        };
        let algorithm = match known::<proto::Algorithm>(wire.algorithm, "Service.algorithm")? {
            proto::Algorithm::Random => model::Algorithm::Random,
            proto::Algorithm::Maglev => model::Algorithm::Maglev,
        };
        let distribution =
            match known::<proto::TrafficDistribution>(wire.distribution, "Service.distribution")? {
                proto::TrafficDistribution::Any => model::TrafficDistribution::Any,
                proto::TrafficDistribution::SameZone => model::TrafficDistribution::SameZone,
                proto::TrafficDistribution::SameNode => model::TrafficDistribution::SameNode,
            };
        Ok(Self {
            name: name(wire.name, "Service.name")?,
            kind,
            addresses: addresses(&wire.addresses, "Service.addresses")?,
            ports: all(wire.ports)?,
            external_addresses: addresses(&wire.external_addresses, "Service.external_addresses")?,
            load_balancer_addresses: addresses(
                &wire.load_balancer_addresses,
                "Service.load_balancer_addresses",
            )?,
            source_ranges: all(wire.source_ranges)?,
            internal_policy: policy(wire.internal_policy, "Service.internal_policy")?,
            external_policy: policy(wire.external_policy, "Service.external_policy")?,
            health_check_port: port_number(wire.health_check_port, "Service.health_check_port")?,
            algorithm,
            distribution,
            affinity_secs: wire.affinity_secs,
            publish_not_ready: wire.publish_not_ready,
            foreign_proxy: wire.foreign_proxy,
        })
    }
}

impl TryFrom<proto::Endpoint> for model::Endpoint {
    type Error = WireError;

    fn try_from(wire: proto::Endpoint) -> Result<Self, WireError> {
        Ok(Self {
            address: address(&wire.address, "Endpoint.address")?,
            ready: wire.ready,
            serving: wire.serving,
            terminating: wire.terminating,
            node: wire.node.into(),
            zone: wire.zone.into(),
            hostname: wire.hostname.into(),
            pod: wire.pod.into(),
            hint_nodes: wire.hint_nodes.into(),
            hint_zones: wire.hint_zones.into(),
        })
    }
}

impl TryFrom<proto::EndpointSlice> for model::EndpointSlice {
    type Error = WireError;

    fn try_from(wire: proto::EndpointSlice) -> Result<Self, WireError> {
        Ok(Self {
            name: name(wire.name, "EndpointSlice.name")?,
            service: wire.service,
            ports: all(wire.ports)?,
            endpoints: all(wire.endpoints)?,
            triggered_unix_ns: wire.triggered_unix_ns,
        })
    }
}

impl TryFrom<proto::Prefix> for model::Prefix {
    type Error = WireError;

    fn try_from(wire: proto::Prefix) -> Result<Self, WireError> {
        let address = address(&wire.address, "Prefix.address")?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = u8::try_from(wire.length).ok().filter(|length| *length <= bits);
        let length =
            length.ok_or(WireError::OutOfRange { field: "Prefix.length", value: wire.length.into() })?;
        Ok(Self { address, length })
    }
}

impl TryFrom<proto::Node> for model::Node {
    type Error = WireError;

    fn try_from(wire: proto::Node) -> Result<Self, WireError> {
        Ok(Self {
            name: wire.name,
            addresses: addresses(&wire.addresses, "Node.addresses")?,
            pod_networks: all(wire.pod_networks)?,
            zone: wire.zone,
            ready: wire.ready,
            leaving: wire.leaving,
        })
    }
}

impl TryFrom<proto::HostPort> for model::HostPort {
    type Error = WireError;

    fn try_from(wire: proto::HostPort) -> Result<Self, WireError> {
        let bytes = Some(wire.address).filter(|bytes| !bytes.is_empty());
        Ok(Self {
            address: bytes.map(|bytes| address(&bytes, "HostPort.address")).transpose()?,
            protocol: known::<proto::Protocol>(wire.protocol, "HostPort.protocol")?.into(),
            port: port_number(wire.port, "HostPort.port")?,
            pod_port: port_number(wire.pod_port, "HostPort.pod_port")?,
        })
    }
}

impl TryFrom<proto::Pod> for model::Pod {
    type Error = WireError;

    fn try_from(wire: proto::Pod) -> Result<Self, WireError> {
        Ok(Self {
            name: name(wire.name, "Pod.name")?,
            uid: wire.uid,
            node: wire.node,
            addresses: addresses(&wire.addresses, "Pod.addresses")?,
            host_network: wire.host_network,
            host_ports: all(wire.host_ports)?,
        })
    }
}

impl TryFrom<proto::Change> for model::Change {
    type Error = WireError;

    fn try_from(wire: proto::Change) -> Result<Self, WireError> {
        use proto::change::Change as Wire;
        Ok(match wire.change.ok_or(WireError::Missing { field: "Change.change" })? {
            Wire::PutService(service) => Self::PutService(service.try_into()?),
            Wire::DeleteService(name) => Self::DeleteService(name.into()),
            Wire::PutSlice(slice) => Self::PutSlice(slice.try_into()?),
            Wire::DeleteSlice(name) => Self::DeleteSlice(name.into()),
            Wire::PutNode(node) => Self::PutNode(node.try_into()?),
            Wire::DeleteNode(name) => Self::DeleteNode(name),
            Wire::PutPod(pod) => Self::PutPod(pod.try_into()?),
            Wire::DeletePod(name) => Self::DeletePod(name.into()),
            Wire::PutNamespace(name) => Self::PutNamespace(name),
            Wire::DeleteNamespace(name) => Self::DeleteNamespace(name),
            Wire::PutServiceNetworks(wire) => {
                Self::PutServiceNetworks { name: wire.name, networks: all(wire.networks)? }
            }
            Wire::DeleteServiceNetworks(name) => Self::DeleteServiceNetworks(name),
            Wire::PutCorefile(text) => Self::PutCorefile(text),
            Wire::DeleteCorefile(_) => Self::DeleteCorefile,
        })
    }
}
