//! What a Service gets, and what it keeps and loses.

use std::sync::Arc;

use fairlead_store::{EmbeddedConfig, EmbeddedStore, Write};
use tempfile::TempDir;

use super::*;
use crate::resource::{default, find};

/// An allocator, and the store where what it hands out is.
struct Cluster {
    addresses: ServiceAddresses,
    store: Arc<dyn Store>,
    _dir: Arc<TempDir>,
}

impl Cluster {
    fn new(networks: &[&str], ports: &str) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        let store = Arc::new(EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).unwrap());
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Self { addresses: ServiceAddresses::new(networks, ports.parse().unwrap()), store, _dir: dir }
    }

    fn dual() -> Self {
        Self::new(&["10.96.0.0/16", "fd00:96::/112"], "30000-32767")
    }

    /// Another server on the same store, which has seen nothing.
    fn twin(&self) -> Self {
        let addresses = ServiceAddresses::new(self.addresses.networks.clone(), self.addresses.node_ports);
        Self { addresses, store: self.store.clone(), _dir: self._dir.clone() }
    }

    /// Writes what the Service claims, planned again as often as somebody was faster.
    async fn write(&self, spec: Value, old: Option<&Value>) -> Result<Value, String> {
        loop {
            let mut service = json!({ "metadata": { "name": "s", "namespace": "d" }, "spec": spec });
            default(services(), &mut service);
            let plan = self.addresses.plan(&*self.store, services(), &mut service, old).await;
            let claims = plan.map_err(|error| error.to_string())?;
            let writes = claims.writes(&*self.store, &service).await.unwrap();
            match self.store.transact(writes).await {
                Ok(_) => {
                    self.addresses.committed(&claims);
                    return Ok(service);
                }
                Err(StoreError::Exists { key }) => match self.addresses.lost(&claims, &key).unwrap() {
                    Lost::TryAgain => {}
                    Lost::Refused(error) => return Err(error.to_string()),
                },
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn create(&self, spec: Value) -> Result<Value, String> {
        self.write(spec, None).await
    }

    /// Everything that is claimed, as the store has it.
    async fn claimed(&self) -> usize {
        let listing = self.store.list(fairlead_store::ListRequest::prefix("/registry/")).await.unwrap();
        assert_eq!(listing.entries.len(), self.addresses.known.len());
        listing.entries.len()
    }
}

fn services() -> &'static Resource {
    find("", "v1", "services").unwrap()
}

fn numbers(service: &Value) -> Vec<u64> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.map(|port| port["nodePort"].as_u64().unwrap_or_default()).collect()
}

#[tokio::test]
async fn the_family_policy_decides_how_many_addresses() {
    // spec → families
    let rows = [
        (json!({}), "IPv4"),
        (json!({ "ipFamilies": ["IPv6"] }), "IPv6"),
        (json!({ "ipFamilyPolicy": "PreferDualStack" }), "IPv4 IPv6"),
        (json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"] }), "IPv6 IPv4"),
        (json!({ "ipFamilies": ["IPv6", "IPv4"] }), "IPv6 IPv4"),
        (json!({ "clusterIP": "fd00:96::7" }), "IPv6"),
    ];
    let cluster = Cluster::dual();
    for (spec, expected) in rows {
        let service = cluster.create(spec.clone()).await.unwrap();
        assert_eq!(texts(&service["spec"]["ipFamilies"]).join(" "), expected, "{spec}");
        let families: Vec<_> = addresses_of(&service).iter().map(family_of).collect();
        assert_eq!(families.join(" "), expected, "{spec}");
        assert_eq!(service["spec"]["clusterIP"], service["spec"]["clusterIPs"][0]);
    }
}

#[tokio::test]
async fn what_is_taken_is_refused_in_upstreams_words_by_every_server() {
    let cluster = Cluster::dual();
    let port = |number: u16| json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": number }] });
    cluster.create(json!({ "clusterIP": "10.96.0.10" })).await.unwrap();
    cluster.create(port(30_007)).await.unwrap();
    let balanced = |health: u16| {
        json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": health,
            "ports": [{ "port": 80 }],
        })
    };
    let rows = [
        (
            json!({ "clusterIP": "10.96.0.10" }),
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: \
             provided IP is already allocated",
        ),
        (port(30_007), "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated"),
        (
            port(80),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. \
             The range of valid ports is 30000-32767",
        ),
        (
            balanced(30_007),
            "spec.healthCheckNodePort: Invalid value: 30007: provided port is already allocated",
        ),
    ];
    for server in [&cluster, &cluster.twin()] {
        for (spec, expected) in &rows {
            let error = server.create(spec.clone()).await.unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}

#[tokio::test]
async fn headless_services_and_external_names_take_nothing() {
    let cluster = Cluster::dual();
    let headless = cluster.create(json!({ "clusterIP": "None", "selector": { "a": "b" } })).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
    cluster.create(json!({ "type": "ExternalName", "externalName": "a.b" })).await.unwrap();
    assert_eq!(cluster.claimed().await, 0);
}

#[tokio::test]
async fn an_update_keeps_extends_and_releases_addresses() {
    let cluster = Cluster::dual();
    let old = cluster.create(json!({})).await.unwrap();
    let dual = cluster.write(json!({ "ipFamilyPolicy": "PreferDualStack" }), Some(&old)).await.unwrap();
    assert_eq!(dual["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(cluster.claimed().await, 2);
    let single = cluster.write(json!({ "ipFamilyPolicy": "SingleStack" }), Some(&dual)).await.unwrap();
    assert_eq!(single["spec"]["clusterIPs"], json!([old["spec"]["clusterIP"]]));
    assert_eq!(cluster.claimed().await, 1);
    cluster.write(json!({ "clusterIP": "10.96.9.9" }), Some(&single)).await.unwrap_err();
}

#[tokio::test]
async fn ports_of_the_nodes_are_shared_between_protocols_and_not_between_services() {
    let cluster = Cluster::dual();
    let dns = json!([
        { "name": "a", "port": 53, "protocol": "TCP" }, { "name": "b", "port": 53, "protocol": "UDP" },
        { "name": "c", "port": 80, "protocol": "TCP" },
    ]);
    let service = cluster.create(json!({ "type": "NodePort", "ports": dns })).await.unwrap();
    let [tcp, udp, http] = numbers(&service)[..] else { panic!("three ports") };
    assert_eq!(tcp, udp);
    assert!(tcp != http && [tcp, http].iter().all(|port| (30_086..=32_767).contains(port)), "{service}");
    assert_eq!(cluster.claimed().await, 3);
    let named = json!([
        { "name": "a", "port": 1, "protocol": "TCP", "nodePort": 30_001 },
        { "name": "b", "port": 2, "protocol": "UDP", "nodePort": 30_001 },
    ]);
    let service = cluster.create(json!({ "type": "NodePort", "ports": named })).await.unwrap();
    assert_eq!(numbers(&service), [30_001, 30_001]);
}

#[tokio::test]
async fn a_change_of_the_type_gives_back_what_the_new_type_has_not() {
    let cluster = Cluster::dual();
    let ports = || json!([{ "port": 80, "protocol": "TCP" }]);
    let old = cluster
        .create(json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports() }))
        .await
        .unwrap();
    assert!(old["spec"]["healthCheckNodePort"].is_u64());
    assert_eq!(cluster.claimed().await, 3);

    // What a merge patch of the type makes: everything else is as it was.
    let with_type = |of: &Value, kind: &str| {
        let mut spec = of["spec"].clone();
        spec["type"] = json!(kind);
        spec
    };
    let node_port = cluster.write(with_type(&old, "NodePort"), Some(&old)).await.unwrap();
    assert_eq!(numbers(&node_port), numbers(&old));
    for field in ["healthCheckNodePort", "allocateLoadBalancerNodePorts"] {
        assert!(node_port["spec"][field].is_null(), "{field}");
    }
    assert_eq!(node_port["spec"]["externalTrafficPolicy"], "Local");
    assert_eq!(cluster.claimed().await, 2);

    let cluster_ip = cluster.write(with_type(&node_port, "ClusterIP"), Some(&node_port)).await.unwrap();
    assert_eq!(numbers(&cluster_ip), [0]);
    assert!(cluster_ip["spec"]["externalTrafficPolicy"].is_null());
    assert_eq!(cluster_ip["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(cluster.claimed().await, 1);

    let mut spec = with_type(&cluster_ip, "ExternalName");
    spec["externalName"] = json!("a.b");
    let alias = cluster.write(spec, Some(&cluster_ip)).await.unwrap();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(alias["spec"][field].is_null(), "{field}");
    }
    assert_eq!(cluster.claimed().await, 0);
    let back = cluster.write(json!({ "type": "NodePort", "ports": ports() }), Some(&alias)).await.unwrap();
    assert_eq!(addresses_of(&back).len(), 1);
    assert_eq!(cluster.claimed().await, 2);
}

#[tokio::test]
async fn a_load_balancer_may_do_without_ports_of_the_nodes() {
    let cluster = Cluster::dual();
    let ports = json!([{ "port": 80 }]);
    let spec = json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports });
    assert_eq!(numbers(&cluster.create(spec).await.unwrap()), [0]);
    assert_eq!(cluster.claimed().await, 1);
}

#[tokio::test]
async fn an_update_without_numbers_keeps_them() {
    let cluster = Cluster::dual();
    let ports = |second: u16| json!([{ "name": "a", "port": 80 }, { "name": "b", "port": second }]);
    let old = cluster.create(json!({ "type": "NodePort", "ports": ports(81) })).await.unwrap();
    let new = cluster.write(json!({ "type": "NodePort", "ports": ports(82) }), Some(&old)).await.unwrap();
    assert_eq!(numbers(&new)[0], numbers(&old)[0]);
    assert_ne!(numbers(&new)[1], numbers(&old)[1]);
    assert_eq!(cluster.claimed().await, 3);
}

#[tokio::test]
async fn full_ranges_say_so_and_look_again_first() {
    let cluster = Cluster::new(&["10.0.0.0/28"], "30000-30001");
    let first = cluster.create(json!({})).await.unwrap();
    for _ in 1..14 {
        cluster.create(json!({})).await.unwrap();
    }
    assert!(cluster.create(json!({})).await.unwrap_err().contains("range 10.0.0.0/28 is full"));
    // Another server gives one back, of which this one knows nothing.
    let twin = cluster.twin();
    let alias = json!({ "type": "ExternalName", "externalName": "a.b" });
    twin.write(alias, Some(&first)).await.unwrap();
    cluster.create(json!({})).await.unwrap();

    let ports = json!([{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }, { "name": "c", "port": 3 }]);
    let spec = json!({ "type": "NodePort", "clusterIP": "None", "ports": ports });
    assert!(cluster.create(spec).await.unwrap_err().contains("failed to allocate a nodePort: range is full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_hand_out_the_same() {
    let cluster = Cluster::new(&["10.0.0.0/25"], "30000-30059");
    let servers = [Arc::new(cluster.twin()), Arc::new(cluster.twin())];
    let mut creates = tokio::task::JoinSet::new();
    for n in 0..60 {
        let server = servers[n % 2].clone();
        creates.spawn(async move {
            server.create(json!({ "type": "NodePort", "ports": [{ "port": 80 }] })).await.unwrap()
        });
    }
    let mut all = std::collections::HashSet::new();
    while let Some(service) = creates.join_next().await {
        for claim in claims_of(&service.unwrap()) {
            assert!(all.insert(claim), "{claim:?} was handed out twice");
        }
    }
    assert_eq!(all.len(), 120);
}

#[tokio::test]
async fn a_claim_is_written_as_upstream_writes_an_address() {
    let cluster = Cluster::dual();
    cluster.create(json!({ "clusterIP": "10.96.0.77" })).await.unwrap();
    let entry = cluster.store.get("/registry/ipaddresses/10.96.0.77").await.unwrap().unwrap();
    let address: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(address["spec"]["parentRef"]["name"], "s");
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    let again = vec![Write::Create { key: entry.key, value: entry.value }];
    assert!(cluster.store.transact(again).await.is_err());
}
