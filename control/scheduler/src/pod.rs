//! A pod as the scheduler sees it: what it asks for, worked out once.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::request::{self, Resources};

/// A port of the host that a pod wants: address, protocol, number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `hostIP`; empty or unspecified is every address.
    pub address: String,
    /// Transport protocol.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || any(&self.address) || any(&other.address))
    }
}

/// A pod and what follows from its spec.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub request: Resources,
    /// What it counts as when nodes are compared.
    pub weight: Resources,
    /// Ports of the host it wants.
    pub ports: Vec<HostPort>,
}

impl PodInfo {
    /// Works out a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let host_network = spec.host_network == Some(true);
        let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let ports = ports.filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port != 0);
            let number = if host_network { Some(port.container_port) } else { host_port };
            Some(HostPort {
                address: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number?,
            })
        });
        Self { request: request::of(spec), weight: request::of_nonzero(spec), ports: ports.collect(), pod }
    }

    /// The same, with only so much of the object as matters once it is on a node: there are many of those.
    #[must_use]
    pub fn settled(self) -> Self {
        let Pod { metadata, spec, status } = self.pod.as_ref();
        let pod = Pod {
            metadata: ObjectMeta {
                name: metadata.name.clone(),
                namespace: metadata.namespace.clone(),
                uid: metadata.uid.clone(),
                labels: metadata.labels.clone(),
                owner_references: metadata.owner_references.clone(),
                ..ObjectMeta::default()
            },
            spec: spec.as_ref().map(|spec| PodSpec {
                node_name: spec.node_name.clone(),
                affinity: spec.affinity.clone(),
                ..PodSpec::default()
            }),
            status: status
                .as_ref()
                .map(|status| PodStatus { phase: status.phase.clone(), ..PodStatus::default() }),
        };
        Self { pod: Arc::new(pod), ..self }
    }

    /// UID; empty for an object that was never stored.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Labels.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.pod.metadata.labels.as_ref()
    }

    /// Its spec.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The node it is bound to.
    pub fn node(&self) -> Option<&str> {
        self.spec()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether it has ended for good and holds nothing of its node any more.
    pub fn finished(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// UID of the controller that made it.
    pub fn controller(&self) -> Option<&str> {
        let owners = self.pod.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str()).next()
    }

    /// Whether it keeps some other pods away from its surroundings.
    pub fn repels(&self) -> bool {
        let affinity = self.spec().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
        affinity.is_some_and(|affinity| {
            let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
            required.is_some_and(|terms| !terms.is_empty())
        })
    }

    /// Whether both belong to one workload: the same controller or, without one, the same labels.
    pub fn is_sibling(&self, other: &Self) -> bool {
        if self.namespace() != other.namespace() {
            return false;
        }
        match (self.controller(), other.controller()) {
            (Some(own), Some(theirs)) => own == theirs,
            (None, None) => self.labels().is_some_and(|own| !own.is_empty() && Some(own) == other.labels()),
            _ => false,
        }
    }
}
