//! What a pod asks of its node.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::quantity;

/// The resource that counts thousandths; all others count units.
pub const CPU: &str = "cpu";

/// Bytes of memory.
pub const MEMORY: &str = "memory";

/// The number of pods.
pub const PODS: &str = "pods";

/// What a container without a request counts as when nodes are compared (upstream: 100m, 200 MB).
const DEFAULTS: [(&str, i64); 2] = [(CPU, 100), (MEMORY, 200 * 1024 * 1024)];

/// Amounts by resource name: CPU in thousandths, everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// From the API's map.
    pub fn from_quantities(map: Option<&BTreeMap<String, Quantity>>) -> Self {
        let amount = |(name, quantity): (&String, &Quantity)| {
            let amount = if name == CPU { quantity::milli(quantity) } else { quantity::units(quantity) };
            (name.clone(), amount)
        };
        Self(map.into_iter().flatten().map(amount).collect())
    }

    /// The amount of one resource; 0 when it is not named.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Everything named.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds every amount.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let own = self.0.entry(name.to_owned()).or_default();
            *own = own.saturating_add(amount);
        }
    }

    /// Subtracts every amount.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let own = self.0.entry(name.to_owned()).or_default();
            *own = own.saturating_sub(amount);
        }
    }

    fn at_least(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let own = self.0.entry(name.to_owned()).or_default();
            *own = amount.max(*own);
        }
    }

    fn default_to(mut self, defaults: &[(&str, i64)]) -> Self {
        for (name, amount) in defaults {
            self.0.entry((*name).to_owned()).or_insert(*amount);
        }
        self
    }
}

/// The request of a whole pod: the containers together or the largest step of the initialisation, whichever is more,
/// plus the overhead. Sidecars (init containers that always restart) count throughout.
pub fn of(spec: &PodSpec) -> Resources {
    total(spec, &[])
}

/// The same with defaults for containers that ask for nothing, so that they do not all count as free.
pub fn of_nonzero(spec: &PodSpec) -> Resources {
    total(spec, &DEFAULTS)
}

fn total(spec: &PodSpec, defaults: &[(&str, i64)]) -> Resources {
    let of = |container: &Container| requests(container.resources.as_ref()).default_to(defaults);
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut largest = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut step = of(container);
        step.add(&sidecars);
        largest.at_least(&step);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&of(container));
        }
    }
    running.add(&sidecars);
    running.at_least(&largest);
    // Requests of the pod as a whole replace what its containers add up to.
    for (name, amount) in requests(spec.resources.as_ref()).iter() {
        running.0.insert(name.to_owned(), amount);
    }
    running.add(&Resources::from_quantities(spec.overhead.as_ref()));
    running
}

fn requests(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::from_quantities(resources.and_then(|resources| resources.requests.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisation_and_sidecars_count_as_upstream_counts_them() {
        let container = |cpu: &str| serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let rows = [
            (vec![container("100m"), container("200m")], vec![], 300),
            (vec![container("100m")], vec![container("500m")], 500),
            (vec![container("100m")], vec![sidecar.clone(), container("500m")], 600),
            (vec![container("600m")], vec![sidecar], 700),
        ];
        for (containers, init, expected) in rows {
            let spec = serde_json::json!({"containers": containers, "initContainers": init});
            let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
            assert_eq!(of(&spec).get(CPU), expected);
        }
    }
}
