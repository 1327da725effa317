//! Requests and limits → cgroup settings, quality of service, OOM score.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::{Value, json};

/// Microseconds; the kernel's and Kubernetes' default.
const CPU_PERIOD: u64 = 100_000;
/// The smallest values the kernel takes.
const CPU_SHARES_MIN: u64 = 2;
const CPU_QUOTA_MIN: u64 = 1_000;

/// The quantity in thousandths, rounded up. `None` when it cannot be read.
///
/// Grammar: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
pub(crate) fn milli_value(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let milli = (number * factor * 1000.0).ceil();
    // Larger values saturate in the conversion.
    (milli >= 0.0).then_some(milli as u64)
}

/// The quantity in whole units, rounded up.
pub(crate) fn value(quantity: &Quantity) -> Option<u64> {
    milli_value(quantity).map(|milli| milli.div_ceil(1000))
}

fn amount(
    list: Option<&BTreeMap<String, Quantity>>,
    name: &str,
    read: fn(&Quantity) -> Option<u64>,
) -> Option<u64> {
    list.and_then(|list| list.get(name)).and_then(read)
}

/// `linux.resources` of the runtime specification.
pub(crate) fn linux(
    resources: Option<&ResourceRequirements>,
    pids_limit: Option<i64>,
    privileged: bool,
) -> Value {
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let cpu_limit = amount(limits, "cpu", milli_value);
    let cpu_request = amount(requests, "cpu", milli_value).or(cpu_limit).unwrap_or(0);
    let mut cpu = json!({ "shares": (cpu_request * 1024 / 1000).clamp(CPU_SHARES_MIN, 262_144) });
    if let Some(milli) = cpu_limit.filter(|milli| *milli > 0) {
        cpu["quota"] = json!((milli * CPU_PERIOD / 1000).max(CPU_QUOTA_MIN));
        cpu["period"] = json!(CPU_PERIOD);
    }
    let mut out = json!({ "cpu": cpu, "devices": devices(privileged) });
    if let Some(bytes) = amount(limits, "memory", value).filter(|bytes| *bytes > 0) {
        out["memory"] = json!({ "limit": bytes });
    }
    if let Some(limit) = pids_limit {
        out["pids"] = json!({ "limit": limit });
    }
    out
}

/// The devices every container may use; runc makes their nodes.
fn devices(privileged: bool) -> Value {
    if privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let rule = |major: u32, minor: Option<u32>| {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rule
    };
    json!([
        { "allow": false, "access": "rwm" },
        rule(1, Some(3)),
        rule(1, Some(5)),
        rule(1, Some(7)),
        rule(1, Some(8)),
        rule(1, Some(9)),
        rule(5, Some(0)),
        rule(5, Some(1)),
        rule(5, Some(2)),
        rule(136, None),
    ])
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let containers: Vec<_> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let set = |list: Option<&BTreeMap<String, Quantity>>, name: &str| {
        amount(list, name, milli_value).filter(|v| *v > 0)
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in containers {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        for name in ["cpu", "memory"] {
            let (limit, request) = (set(limits, name), set(requests, name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The OOM score as Kubernetes computes it, but never below 0: lowering it needs `CAP_SYS_RESOURCE`.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container) -> i64 {
    match qos_class(pod) {
        "Guaranteed" => 0,
        "BestEffort" => 1000,
        _ => {
            let request = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let bytes = amount(request, "memory", value).unwrap_or(0);
            let total = crate::node_status::memory_bytes().max(1);
            let share = i64::try_from(1000 * bytes / total).unwrap_or(1000);
            (1000 - share).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn quantities_are_read_in_every_notation() {
        for (text, milli) in [
            ("1", 1_000),
            ("250m", 250),
            ("0.5", 500),
            ("100n", 1),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("2e3", 2_000_000),
        ] {
            assert_eq!(milli_value(&quantity(text)), Some(milli), "{text}");
        }
        assert_eq!(milli_value(&quantity("lots")), None);
    }

    #[test]
    fn limits_become_quota_and_memory_and_requests_become_shares() {
        let resources: ResourceRequirements = serde_json::from_value(json!({
            "limits": { "cpu": "500m", "memory": "64Mi" }, "requests": { "cpu": "250m" } }))
        .unwrap();
        let out = linux(Some(&resources), Some(10), false);
        assert_eq!(out["cpu"], json!({ "shares": 256, "quota": 50_000, "period": 100_000 }));
        assert_eq!(out["memory"]["limit"], 64 << 20);
        assert_eq!(out["pids"]["limit"], 10);
    }

    #[test]
    fn the_quality_of_service_follows_requests_and_limits() {
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({ "requests": { "cpu": "1" } }), "Burstable"),
            (json!({ "limits": { "cpu": "1", "memory": "1Mi" } }), "Guaranteed"),
            (
                json!({ "limits": { "cpu": "1", "memory": "1Mi" }, "requests": { "cpu": "500m" } }),
                "Burstable",
            ),
        ] {
            let pod: Pod = serde_json::from_value(
                json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }),
            )
            .unwrap();
            assert_eq!(qos_class(&pod), class, "{resources}");
        }
    }
}
