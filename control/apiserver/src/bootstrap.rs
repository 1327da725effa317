//! What the API server makes for itself: the system's namespaces, its own Service, and the cluster DNS Service.

use std::sync::Arc;

use bytes::Bytes;
use fairlead_store::StoreError;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::Config;
use crate::addresses::{self, RepairError};
use crate::api::{self, Api};
use crate::authn::Identity;
use crate::body::Body;
use crate::furnish::{self, FurnishError};
use crate::masters::Masters;
use crate::object;
use crate::resource::SYSTEM_PRIORITIES;

/// Why the objects of the system cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Services and what they claim cannot be compared.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The store does not answer.
    #[error("cannot tell where the API is reached")]
    Store(#[from] StoreError),
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
pub(crate) async fn run(
    api: &Arc<Api>,
    config: &Config,
    port: u16,
    masters: &mut Masters,
) -> Result<(), BootstrapError> {
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
    masters.round().await?;
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
pub(crate) async fn apply(api: &Arc<Api>, path: &str, object: Value) -> Result<(), BootstrapError> {
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
