//! The endpoints of the cluster DNS: the DNS server of every Ready node, preferred by its own node.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};

use crate::{
    cache::{Caches, Key, Touched},
    driver::Controller,
    endpoint_slice::{MANAGED_BY, SERVICE_NAME},
    meta::{controller_reference, is_deleting},
    plan::{Plan, Write},
};

/// Who writes these slices.
const MANAGER: &str = "cluster-dns-controller.fairlead.dev";

/// Namespace and name of the service.
const SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// Name, protocol and number of the DNS server's ports, as CoreDNS has them.
const PORTS: [(&str, &str, i32); 3] = [("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153)];

/// Endpoints of one slice.
const ENDPOINTS_MAX: usize = 100;

const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller.
#[derive(Debug, Default)]
pub struct ClusterDns;

impl Controller for ClusterDns {
    fn name(&self) -> &'static str {
        "cluster-dns-controller"
    }

    fn keys(&self, _: &Caches, touched: &Touched) -> Vec<Key> {
        let key = Key::new(SERVICE.0, SERVICE.1);
        let concerned = match touched {
            Touched::Service(changed) => Key::of(changed.latest()) == key,
            Touched::EndpointSlice(changed) => changed.sides().any(is_managed),
            Touched::Node(changed) => changed.old.as_deref().map(facts) != changed.new.as_deref().map(facts),
            _ => false,
        };
        if concerned { vec![key] } else { Vec::new() }
    }

    fn reconcile(&self, view: &Caches, key: &Key, _: Timestamp) -> Plan {
        let slices = view.slices.in_namespace(&key.namespace);
        let mut own: BTreeMap<Key, &EndpointSlice> = slices
            .iter()
            .filter(|slice| is_managed(slice) && !is_deleting(&slice.metadata))
            .map(|slice| (Key::of(slice.as_ref()), slice.as_ref()))
            .collect();
        let service = view.services.get(key).filter(|service| !is_deleting(&service.metadata));
        let nodes = view.nodes.all();
        let wanted =
            service.map(|service| wanted(&service, nodes.iter().map(AsRef::as_ref))).unwrap_or_default();
        let mut plan = Plan::default();
        for slice in wanted {
            match own.remove(&Key::of(&slice)) {
                None => plan.writes.push(Write::create(&slice, None)),
                Some(old) if old.endpoints == slice.endpoints && old.ports == slice.ports => {}
                Some(old) => {
                    let changed =
                        EndpointSlice { endpoints: slice.endpoints, ports: slice.ports, ..old.clone() };
                    plan.writes.push(Write::replace(&changed));
                }
            }
        }
        plan.writes.extend(own.into_values().map(|slice| Write::delete(slice, None)));
        plan
    }
}

fn is_managed(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True") && !is_deleting(&node.metadata)
}

/// What the slices show of a node.
fn facts(node: &Node) -> (bool, Vec<IpAddr>, Option<String>) {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    let addresses = internal.filter_map(|address| address.address.parse().ok()).collect();
    let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned();
    (is_ready(node), addresses, zone)
}

fn wanted<'a>(service: &Service, nodes: impl Iterator<Item = &'a Node>) -> Vec<EndpointSlice> {
    let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    for node in nodes {
        let (ready, addresses, zone) = facts(node);
        let first = |v6: bool| addresses.iter().find(|address| address.is_ipv6() == v6);
        for (family, address) in [("IPv4", first(false)), ("IPv6", first(true))] {
            if let Some(address) = address.filter(|_| ready) {
                families.entry(family).or_default().push(endpoint(node, address, zone.clone()));
            }
        }
    }
    let said = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    families.retain(|family, _| said.is_empty() || said.iter().any(|said| said == family));
    let slices = families.into_iter().flat_map(|(family, endpoints)| {
        let chunks: Vec<Vec<Endpoint>> = endpoints.chunks(ENDPOINTS_MAX).map(<[_]>::to_vec).collect();
        chunks.into_iter().enumerate().map(move |(number, chunk)| slice(service, family, number, chunk))
    });
    slices.collect()
}

fn endpoint(node: &Node, address: &IpAddr, zone: Option<String>) -> Endpoint {
    let name = node.metadata.name.clone().unwrap_or_default();
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        hints: Some(EndpointHints { for_nodes: Some(vec![ForNode { name: name.clone() }]), for_zones: None }),
        node_name: Some(name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Node".into()),
            name: Some(name),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

fn slice(service: &Service, family: &str, number: usize, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let suffix = if number == 0 { String::new() } else { format!("-{number}") };
    let port = |(name, protocol, port): (&str, &str, i32)| EndpointPort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: Some(port),
        app_protocol: None,
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}{suffix}", family.to_lowercase())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([
                (SERVICE_NAME.to_owned(), name),
                (MANAGED_BY.to_owned(), MANAGER.to_owned()),
            ])),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(PORTS.into_iter().map(port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(ready: &[(&str, &str, bool)]) -> Caches {
        let view = Caches::default();
        let service =
            json!({"metadata": {"namespace": "kube-system", "name": "kube-dns", "uid": "s"}, "spec": {}});
        view.services.put(serde_json::from_value(service).expect("a service"));
        for (name, number, ready) in ready {
            let node = json!({"metadata": {"name": name}, "status": {
                "addresses": [{"type": "InternalIP", "address": format!("172.29.0.{number}")},
                              {"type": "InternalIP", "address": format!("fd00:29::{number}")}],
                "conditions": [{"type": "Ready", "status": if *ready { "True" } else { "False" }}]}});
            view.nodes.put(serde_json::from_value(node).expect("a node"));
        }
        view
    }

    fn reconcile(view: &Caches) -> Plan {
        ClusterDns.reconcile(view, &Key::new("kube-system", "kube-dns"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn every_ready_node_serves_and_is_preferred_by_itself() {
        let view = view(&[("n1", "11", true), ("n2", "12", false)]);
        let plan = reconcile(&view);
        let [Write::Create { object: v4, .. }, Write::Create { object: v6, .. }] = plan.writes.as_slice()
        else {
            panic!("a slice per family: {plan:?}")
        };
        assert_eq!(v4["addressType"], "IPv4");
        assert_eq!(v6["endpoints"][0]["addresses"], json!(["fd00:29::11"]));
        assert_eq!(v4["endpoints"].as_array().map(Vec::len), Some(1));
        assert_eq!(v4["endpoints"][0]["hints"]["forNodes"], json!([{"name": "n1"}]));
        assert_eq!(v4["ports"][0], json!({"name": "dns", "protocol": "UDP", "port": 53}));
        for write in plan.writes {
            let Write::Create { object, .. } = write else { unreachable!() };
            view.slices.put(serde_json::from_value(object).expect("a slice"));
        }
        assert_eq!(reconcile(&view), Plan::default(), "what is written is wanted");
    }
}
