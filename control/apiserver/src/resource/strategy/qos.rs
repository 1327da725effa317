//! A pod's quality-of-service class, from its containers' resources.

use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`: guaranteed is a limit on CPU and memory in every container that equals
/// the request, best effort is neither limit nor request in any.
pub(super) fn class(pod: &Value) -> &'static str {
    let lists = ["/spec/containers", "/spec/initContainers"];
    let containers = lists.iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten();
    let (mut some, mut all) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let quantity = |of: &str| {
                let value = container.get("resources")?.get(of)?.get(name)?;
                crate::resource::quantity::parse(value).filter(|amount| *amount > 0)
            };
            let (limit, request) = (quantity("limits"), quantity("requests"));
            some |= limit.is_some() || request.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (some, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
