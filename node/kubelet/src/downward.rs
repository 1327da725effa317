//! The downward API: a pod's own fields as text, for environment variables and volumes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::{
    Error,
    spec::resources::{milli_value, value},
};

/// What the node knows of a pod that its object may not say yet.
#[derive(Clone, Default, Debug)]
pub(crate) struct PodFacts {
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) host_ips: Vec<IpAddr>,
}

/// The text of a field such as `metadata.labels['app']`.
pub(crate) fn field(pod: &Pod, path: &str, facts: &PodFacts) -> Result<String, Error> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(unknown(path)),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let all = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
        }
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => all(&facts.pod_ips),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => all(&facts.host_ips),
        _ => return Err(unknown(path)),
    })
}

/// A limit or request of a container as a number, in units of `divisor`; without one, what the node has.
pub(crate) fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, Error> {
    let container = match &selector.container_name {
        Some(name) => pod
            .spec
            .as_ref()
            .and_then(|spec| {
                spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == *name)
            })
            .ok_or_else(|| Error::unsupported("resourceFieldRef", format!("no container is named {name}")))?,
        None => container,
    };
    let (kind, name) = selector.resource.split_once('.').ok_or_else(|| unknown(&selector.resource))?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let list = match kind {
        "limits" => limits,
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unknown(&selector.resource)),
    };
    let quantity = list.and_then(|list| list.get(name)).or_else(|| limits.and_then(|list| list.get(name)));
    let machine = || match name {
        "cpu" => crate::node_status::cpu_millis(),
        "memory" => crate::node_status::memory_bytes() * 1000,
        _ => 0,
    };
    let milli = match quantity {
        Some(quantity) => milli_value(quantity).ok_or_else(|| unknown(&selector.resource))?,
        None => machine(),
    };
    let divisor = selector.divisor.as_ref().filter(|d| value(d).is_some_and(|v| v > 0)).and_then(milli_value);
    Ok(milli.div_ceil(divisor.unwrap_or(1000)).to_string())
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    Some((map, key.strip_suffix("']")?))
}

/// `key="value"` lines, as upstream writes them.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn unknown(path: &str) -> Error {
    Error::unsupported(path, "the downward API has no such field")
}
