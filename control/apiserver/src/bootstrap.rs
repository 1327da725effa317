//! What the API server makes for itself: the system's namespaces, its own Service, and the cluster DNS Service.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::Config;
use crate::addresses::{self, RepairError};
use crate::api::{self, Api};
use crate::authn::Identity;
use crate::body::Body;
use crate::furnish::{self, FurnishError};
use crate::object;
use crate::resource::SYSTEM_PRIORITIES;

/// Why the objects of the system cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Services and what they claim cannot be compared.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// A namespace cannot be furnished.
    #[error(transparent)]
    Furnish(#[from] FurnishError),
    /// The API refused an object of the system.
    #[error("cannot make {path}: {message}")]
    Refused {
        /// The collection.
        path: String,
        /// The API's words.
        message: String,
    },
}

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing, and brings the API's own endpoints up to date.
pub(crate) async fn run(api: &Arc<Api>, config: &Config, port: u16) -> Result<(), BootstrapError> {
    for name in NAMESPACES {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        ensure(api, "/api/v1/namespaces", namespace).await?;
    }
    ensure(api, "/api/v1/namespaces/default/services", kubernetes_service(config, port)).await?;
    for (name, value) in SYSTEM_PRIORITIES {
        ensure(api, "/apis/scheduling.k8s.io/v1/priorityclasses", priority_class(name, *value)).await?;
    }
    ensure(api, "/apis/networking.k8s.io/v1/servicecidrs", service_cidr(config)).await?;
    furnish::all(api).await?;
    let (own, reachable): (Vec<_>, Vec<_>) = config.advertise.iter().partition(|a| a.is_loopback());
    if reachable.is_empty() && !own.is_empty() {
        tracing::warn!(advertise = ?own, "only this machine reaches the advertised address: pods do not reach the API");
    }
    if !reachable.is_empty() {
        let endpoints = kubernetes_endpoints(&reachable, port);
        apply(api, "/api/v1/namespaces/default/endpoints", endpoints).await?;
    }
    for (family, addresses) in by_family(&reachable) {
        let slice = kubernetes_slice(family, &addresses, port);
        apply(api, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await?;
    }
    if !config.cluster_dns.is_empty() {
        ensure(api, "/api/v1/namespaces/kube-system/services", dns_service(config)).await?;
    }
    Ok(())
}

fn kubernetes_service(config: &Config, port: u16) -> Value {
    let address = config.service_networks.first().map(|network| addresses::at(network, 1));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "clusterIP": address,
            "ipFamilyPolicy": "SingleStack",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": port }],
        },
    })
}

/// The priorities that the system's own pods name.
fn priority_class(name: &str, value: i64) -> Value {
    let whom = name.trim_start_matches("system-").trim_end_matches("-critical");
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": { "name": name },
        "value": value,
        "description": format!("For pods that the {whom} cannot do without."),
    })
}

/// Where service addresses come from, for those who look.
fn service_cidr(config: &Config) -> Value {
    let networks: Vec<String> = config.service_networks.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes" },
        "spec": { "cidrs": networks },
    })
}

/// The older form of the slices, which has one family: the first's.
fn kubernetes_endpoints(addresses: &[IpAddr], port: u16) -> Value {
    let first = addresses.first().map(IpAddr::is_ipv4);
    let of_family = addresses.iter().filter(|address| Some(address.is_ipv4()) == first);
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": of_family.map(|address| json!({ "ip": address })).collect::<Vec<_>>(),
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        }],
    })
}

fn kubernetes_slice(family: &str, addresses: &[IpAddr], port: u16) -> Value {
    let suffix = if family == "IPv4" { "" } else { "-ipv6" };
    let endpoint = |address: &IpAddr| json!({ "addresses": [address], "conditions": { "ready": true } });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("kubernetes{suffix}"),
            "labels": {
                "kubernetes.io/service-name": "kubernetes",
                "endpointslice.kubernetes.io/managed-by": "fairlead-apiserver",
            },
        },
        "addressType": family,
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    })
}

fn dns_service(config: &Config) -> Value {
    let first = config.cluster_dns.first();
    let policy = if config.cluster_dns.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "labels": { "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS" },
        },
        "spec": {
            "clusterIP": first,
            "clusterIPs": config.cluster_dns,
            "ipFamilyPolicy": policy,
            "trafficDistribution": "PreferSameNode",
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
                { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 },
            ],
        },
    })
}

fn by_family(addresses: &[IpAddr]) -> Vec<(&'static str, Vec<IpAddr>)> {
    let of = |v4: bool| addresses.iter().copied().filter(|a| a.is_ipv4() == v4).collect::<Vec<_>>();
    let all = [("IPv4", of(true)), ("IPv6", of(false))];
    all.into_iter().filter(|(_, addresses)| !addresses.is_empty()).collect()
}

/// Creates an object unless it is there.
async fn ensure(api: &Arc<Api>, path: &str, object: Value) -> Result<(), BootstrapError> {
    let own_path = format!("{path}/{}", object::meta(&object, "name"));
    if call(api, "GET", &own_path, &Value::Null).await.0 == StatusCode::OK {
        return Ok(());
    }
    match call(api, "POST", path, &object).await {
        (StatusCode::CREATED | StatusCode::CONFLICT, _) => Ok(()),
        (_, message) => Err(BootstrapError::Refused { path: path.to_owned(), message }),
    }
}

/// Creates an object or replaces it.
async fn apply(api: &Arc<Api>, path: &str, object: Value) -> Result<(), BootstrapError> {
    match call(api, "POST", path, &object).await {
        (StatusCode::CREATED, _) => return Ok(()),
        (StatusCode::CONFLICT, _) => {}
        (_, message) => return Err(BootstrapError::Refused { path: path.to_owned(), message }),
    }
    let path = format!("{path}/{}", object::meta(&object, "name"));
    match call(api, "PUT", &path, &object).await {
        (StatusCode::OK, _) => Ok(()),
        (_, message) => Err(BootstrapError::Refused { path, message }),
    }
}

/// Goes through the whole request chain, so that these objects are like any others.
async fn call(api: &Arc<Api>, method: &str, path: &str, object: &Value) -> (StatusCode, String) {
    let mut request = Request::new(Full::new(Bytes::from(object.to_string())));
    *request.method_mut() = method.parse().expect("the methods above are valid");
    *request.uri_mut() = path.parse().expect("the paths above are valid");
    request.extensions_mut().insert(Identity::in_process());
    let response: Response<Body> = api::serve(api.clone(), request).await;
    let code = response.status();
    let bytes =
        response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}
