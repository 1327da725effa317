#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better with values")]

use serde_json::{Value, json};

use super::*;

fn put<K: Indexed + serde::de::DeserializeOwned>(object: Value) -> Change {
    serde_json::from_value::<K>(object).expect("a valid object").put()
}

fn service(spec: Value, labels: Value) -> model::Service {
    let meta = json!({"namespace": "demo", "name": "echo", "labels": labels});
    match put::<Service>(json!({"metadata": meta, "spec": spec})) {
        Change::PutService(service) => service,
        other => panic!("not a service: {other:?}"),
    }
}

#[test]
fn a_service_keeps_what_the_dataplane_needs() {
    let spec = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        "internalTrafficPolicy": "Local", "trafficDistribution": "PreferSameNode", "sessionAffinity": "ClientIP",
    });
    let service = service(spec, json!({}));
    assert_eq!(service.addresses, [IpAddr::from([10, 96, 0, 7]), "fd00:96::7".parse().expect("v6")]);
    assert_eq!(service.ports[1].protocol, model::Protocol::Udp);
    assert_eq!(service.internal_policy, model::TrafficPolicy::Local);
    assert_eq!(service.distribution, model::TrafficDistribution::SameNode);
    assert_eq!(service.affinity_secs, 10_800);
    assert!(!service.foreign_proxy);
}

#[test]
fn a_source_range_that_does_not_parse_lets_nobody_in() {
    let rows: [(Value, &[&str]); 4] = [
        (json!([]), &[]),
        (json!(["198.51.100.0/24"]), &["198.51.100.0/24"]),
        (json!(["nonsense"]), &["255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]),
        (
            json!(["198.51.100.0/24", "198.51.100.0/33"]),
            &["198.51.100.0/24", "255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"],
        ),
    ];
    for (ranges, expected) in rows {
        let service = service(json!({"loadBalancerSourceRanges": ranges}), json!({}));
        let text = |range: &model::Prefix| format!("{}/{}", range.address, range.length);
        assert_eq!(service.source_ranges.iter().map(text).collect::<Vec<_>>(), expected);
    }
}

fn faults<K: Indexed + serde::de::DeserializeOwned>(object: Value) -> Vec<String> {
    serde_json::from_value::<K>(object).expect("a valid object").faults()
}

#[test]
fn what_means_nothing_is_named_with_its_field() {
    let service = |spec: Value| faults::<Service>(json!({"metadata": {"name": "s"}, "spec": spec}));
    let ingress = |ip: &str| json!({"spec": {}, "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
    let slice = |slice: Value| faults::<EndpointSlice>(slice);
    let rows = [
        (service(json!({"clusterIPs": ["10.96.0"]})), "spec.clusterIPs has \"10.96.0\", which is no address"),
        (service(json!({"externalIPs": ["x", "192.0.2.1"]})), "spec.externalIPs has \"x\""),
        (faults::<Service>(ingress("lb.example.org")), "status.loadBalancer.ingress has \"lb.example.org\""),
        (service(json!({"ports": [{"port": 0}, {"port": 80}]})), "spec.ports.port has 0, which is no port"),
        (service(json!({"ports": [{"port": 80, "nodePort": 70_000}]})), "spec.ports.nodePort has 70000"),
        (
            service(json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.1"]})),
            "spec.loadBalancerSourceRanges has \"10.0.0.1\", which is no network (ADDRESS/LENGTH) and lets nobody in",
        ),
        (
            slice(
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.2"]}, {"addresses": ["y"]}]}),
            ),
            "endpoints.addresses has \"y\"",
        ),
        (slice(json!({"addressType": "IPv4", "endpoints": [], "ports": [{"port": 0}]})), "ports.port has 0"),
        (
            faults::<Node>(json!({"status": {"addresses": [{"type": "InternalIP", "address": "z"}]}})),
            "status.addresses has \"z\"",
        ),
        (faults::<Node>(json!({"spec": {"podCIDRs": ["10.244.0.0"]}})), "spec.podCIDRs has \"10.244.0.0\""),
        (faults::<Pod>(json!({"status": {"podIPs": [{"ip": "?"}]}})), "status.podIPs has \"?\""),
    ];
    for (found, expected) in rows {
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}: {found:?}");
    }
    let fine = [
        service(json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80, "nodePort": 0}]})),
        service(json!({"type": "ExternalName", "clusterIP": ""})),
        slice(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.org"]}]})),
        slice(json!({"addressType": "IPv4", "endpoints": [], "ports": [{"name": "all"}]})),
    ];
    assert_eq!(fine.concat(), Vec::<String>::new());
}

#[test]
fn of_an_endpoints_addresses_the_first_is_used() {
    let slice = json!({
        "metadata": {"namespace": "demo", "name": "s", "labels": {"kubernetes.io/service-name": "echo"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.2", "10.244.0.3"]}],
    });
    let Change::PutSlice(slice) = put::<EndpointSlice>(slice) else { panic!("not a slice") };
    let found: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.address).collect();
    assert_eq!(found, [IpAddr::from([10, 244, 0, 2])]);
}

#[test]
fn the_kinds_of_services_are_told_apart() {
    let headless = service(json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!({}));
    assert_eq!((headless.kind, headless.addresses.len()), (model::ServiceKind::Headless, 0));
    let alias = service(json!({"type": "ExternalName", "externalName": "example.org"}), json!({}));
    assert_eq!(alias.kind, model::ServiceKind::ExternalName("example.org".into()));
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let foreign = json!({label: ""});
        assert!(service(json!({"clusterIP": "10.96.0.9"}), foreign).foreign_proxy, "{label}");
    }
}

#[test]
fn unset_endpoint_conditions_mean_ready() {
    let rows = [
        (json!(null), (true, true, false)),
        (json!({"ready": false}), (false, false, false)),
        (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
    ];
    for (conditions, expected) in rows {
        let slice = json!({
            "metadata": {"namespace": "demo", "name": "echo-1", "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.244.0.2"], "conditions": conditions,
                           "targetRef": {"kind": "Pod", "name": "echo-x"}}],
        });
        let Change::PutSlice(slice) = put::<EndpointSlice>(slice) else { panic!("not a slice") };
        let found = &slice.endpoints[0];
        assert_eq!((found.ready, found.serving, found.terminating), expected);
        assert_eq!(&*found.pod, "echo-x");
    }
}

#[test]
fn a_slice_without_a_service_is_not_told() {
    let slice =
        json!({"metadata": {"namespace": "demo", "name": "s"}, "addressType": "IPv4", "endpoints": []});
    assert_eq!(put::<EndpointSlice>(slice), Change::DeleteSlice(ObjectName::new("demo", "s")));
}

#[test]
fn a_node_has_one_internal_address_per_family() {
    let node = json!({
        "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:244:0:1::/64"]},
        "status": {"addresses": [{"type": "Hostname", "address": "node-1"}, {"type": "InternalIP", "address": "172.29.0.11"},
                                 {"type": "InternalIP", "address": "172.29.0.12"}, {"type": "InternalIP", "address": "fd00:29::b"}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let Change::PutNode(node) = put::<Node>(node) else { panic!("not a node") };
    assert_eq!(node.addresses, [IpAddr::from([172, 29, 0, 11]), "fd00:29::b".parse().expect("v6")]);
    assert_eq!(node.pod_networks.iter().map(|network| network.length).collect::<Vec<_>>(), [24, 64]);
    assert!(node.ready);
    assert_eq!(node.zone, "a");
}

#[test]
fn a_pod_is_told_while_it_has_addresses() {
    let pod = |phase: &str, ips: Value| {
        put::<Pod>(json!({"metadata": {"namespace": "demo", "name": "p", "uid": "u"},
                          "spec": {"nodeName": "node-1", "containers": []},
                          "status": {"phase": phase, "podIPs": ips}}))
    };
    let gone = Change::DeletePod(ObjectName::new("demo", "p"));
    assert_eq!(pod("Pending", json!([])), gone);
    assert!(matches!(pod("Running", json!([{"ip": "10.244.0.3"}])), Change::PutPod(_)));
    assert_eq!(pod("Succeeded", json!([{"ip": "10.244.0.3"}])), gone);
}

#[test]
fn what_outside_clients_reach_a_service_by_is_kept() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}],
        "externalIPs": ["192.0.2.9"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "loadBalancerSourceRanges": [" 198.51.100.0/24 ", "2001:db8::/32"],
    });
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.7"}, {"ip": "203.0.113.8", "ipMode": "Proxy"}, {"ip": "203.0.113.9", "ipMode": "VIP"},
        {"hostname": "lb.example.org"},
    ]}});
    let annotations = json!({"fairlead.io/load-balancing": "maglev"});
    let meta = json!({"namespace": "demo", "name": "echo", "annotations": annotations});
    let put = put::<Service>(json!({"metadata": meta, "spec": spec, "status": status}));
    let Change::PutService(service) = put else { panic!("not a service") };
    assert_eq!(service.ports.iter().map(|port| port.node_port).collect::<Vec<_>>(), [30080, 0]);
    assert_eq!(service.external_addresses, [IpAddr::from([192, 0, 2, 9])]);
    let balanced = [IpAddr::from([203, 0, 113, 7]), IpAddr::from([203, 0, 113, 9])];
    assert_eq!(service.load_balancer_addresses, balanced);
    assert_eq!(service.source_ranges.iter().map(|range| range.length).collect::<Vec<_>>(), [24, 32]);
    assert_eq!(service.external_policy, model::TrafficPolicy::Local);
    assert_eq!((service.health_check_port, service.algorithm), (31000, model::Algorithm::Maglev));
}

#[test]
fn old_spellings_of_addresses_are_understood() {
    let rows = [
        ("172.30.0.041", Some("172.30.0.41")),
        (" 172.30.0.1\n", Some("172.30.0.1")),
        ("fd00::1", Some("fd00::1")),
        ("172.30.0", None),
        ("172.30.0.256", None),
    ];
    for (text, expected) in rows {
        assert_eq!(address(text), expected.map(|text| text.parse().expect("an address")), "{text:?}");
    }
}

#[test]
fn a_pod_tells_the_ports_it_has_on_its_node() {
    let ports = json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
                       {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
                       {"containerPort": 82, "hostPort": 8082, "hostIP": "0.0.0.0"}]);
    let pod = |host_network: bool| {
        let spec = json!({"nodeName": "node-1", "hostNetwork": host_network,
                          "containers": [{"name": "c", "ports": ports}]});
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.244.0.3"}]});
        match put::<Pod>(
            json!({"metadata": {"namespace": "demo", "name": "p"}, "spec": spec, "status": status}),
        ) {
            Change::PutPod(pod) => pod.host_ports,
            other => panic!("not a pod: {other:?}"),
        }
    };
    let found: Vec<_> = pod(false).into_iter().map(|port| (port.port, port.pod_port, port.address)).collect();
    assert_eq!(found, [(8080, 80, None), (8082, 82, None), (53, 53, Some(IpAddr::from([192, 0, 2, 1])))]);
    assert_eq!(pod(true), [], "its ports are its node's already");
}

#[test]
fn a_sidecar_has_ports_on_the_node_and_another_init_container_has_none() {
    let container = |name: &str, policy: Value, port: u16| json!({"name": name, "restartPolicy": policy, "ports": [{"containerPort": 80, "hostPort": port}]});
    let inits = [container("sidecar", json!("Always"), 8080), container("init", Value::Null, 8081)];
    let object = json!({"metadata": {"namespace": "demo", "name": "p"},
                        "spec": {"nodeName": "node-1", "containers": [], "initContainers": inits},
                        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.3"}]}});
    let Change::PutPod(pod) = put::<Pod>(object) else { panic!("not a pod") };
    assert_eq!(pod.host_ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8080]);
}

#[test]
fn a_node_that_is_going_away_is_marked() {
    let leaving =
        |meta: Value, taints: Value| match put::<Node>(json!({"metadata": meta, "spec": {"taints": taints}}))
        {
            Change::PutNode(node) => node.leaving,
            other => panic!("not a node: {other:?}"),
        };
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    assert!(!leaving(json!({"name": "n"}), json!([])));
    assert!(leaving(json!({"name": "n"}), taint));
    assert!(leaving(json!({"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}), json!([])));
}

#[test]
fn networks_of_services_are_told_and_what_is_none_is_named() {
    let object = json!({"metadata": {"name": "kubernetes"},
                        "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112", "10.97.0.0/33"]}});
    let Change::PutServiceNetworks { name, networks } = put::<ServiceCIDR>(object.clone()) else {
        panic!("not networks of services")
    };
    let lengths: Vec<_> = networks.iter().map(|network| network.length).collect();
    assert_eq!((name.as_str(), lengths.as_slice()), ("kubernetes", &[16, 112][..]));
    let expected = "spec.cidrs has \"10.97.0.0/33\", which is no network (ADDRESS/LENGTH) and is left out";
    assert_eq!(faults::<ServiceCIDR>(object), [expected]);
}
