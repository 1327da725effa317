//! Endpoints onto slices with as few writes as possible.
//!
//! What is on a slice stays there; new endpoints fill the slices that have room, fullest first; only what is left over
//! makes new slices. Without any endpoint one empty slice remains, which tells readers that there is none.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};

use super::{
    Family, HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, TRIGGER_TIME,
    endpoints::{Candidate, Ports, endpoint_ports, ports_of},
};
use crate::{meta::controller_reference, plan::Write};

/// Endpoints of one slice (`--max-endpoints-per-slice`).
const ENDPOINTS_MAX: usize = 100;

/// A slice as it should be.
struct Wanted<'a> {
    old: Option<&'a EndpointSlice>,
    endpoints: Vec<Endpoint>,
    /// It has become empty and is not needed.
    delete: bool,
}

/// The writes that bring the slices of one family of a service up to date.
pub(super) fn spread(
    service: &Service,
    family: Family,
    mut groups: BTreeMap<Ports, Vec<Candidate>>,
    own: Vec<&EndpointSlice>,
    now: Timestamp,
) -> Vec<Write> {
    let mut by_ports = BTreeMap::<Ports, Vec<&EndpointSlice>>::new();
    for slice in own {
        by_ports.entry(ports_of(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    let mut writes = Vec::new();
    // Slices of ports that no pod has any more serve the groups that have none yet.
    let mut spare: Vec<&EndpointSlice> = Vec::new();
    for (ports, slices) in &by_ports {
        if !groups.contains_key(ports) {
            spare.extend(slices);
        }
    }
    for (ports, candidates) in groups {
        let placeholder = candidates.is_empty();
        let since = candidates.iter().filter_map(|candidate| candidate.since).max();
        let mut slices = by_ports.remove(&ports).unwrap_or_default();
        if slices.is_empty() {
            slices.extend(spare.pop());
        }
        for wanted in place(candidates, slices, placeholder) {
            let draft = Draft { service, family, ports: &ports, since: since.unwrap_or(now) };
            writes.extend(draft.write(wanted));
        }
    }
    writes.extend(spare.into_iter().map(|slice| Write::delete(slice, None)));
    // Additions before removals, so that a moved endpoint is never missing.
    writes.sort_by_key(|write| matches!(write, Write::Delete { .. }));
    writes
}

/// Whose endpoint it is: the pod behind it.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    uid.unwrap_or_else(|| endpoint.addresses.first().cloned().unwrap_or_default())
}

fn place<'a>(
    candidates: Vec<Candidate>,
    slices: Vec<&'a EndpointSlice>,
    placeholder: bool,
) -> Vec<Wanted<'a>> {
    let order: Vec<String> = candidates.iter().map(|candidate| identity(&candidate.endpoint)).collect();
    let mut new: HashMap<String, Endpoint> =
        candidates.into_iter().map(|candidate| (identity(&candidate.endpoint), candidate.endpoint)).collect();
    let mut wanted: Vec<Wanted<'a>> = Vec::new();
    for slice in slices {
        let known = slice.endpoints.iter().flatten();
        let endpoints = known.filter_map(|endpoint| new.remove(&identity(endpoint))).collect();
        wanted.push(Wanted { old: Some(slice), endpoints, delete: false });
    }
    let mut left: Vec<Endpoint> = order.iter().filter_map(|identity| new.remove(identity)).collect();
    let mut fullest: Vec<usize> = (0..wanted.len()).collect();
    fullest.sort_by_key(|at| std::cmp::Reverse(wanted[*at].endpoints.len()));
    for at in fullest {
        let room = ENDPOINTS_MAX.saturating_sub(wanted[at].endpoints.len()).min(left.len());
        wanted[at].endpoints.extend(left.drain(..room));
    }
    while !left.is_empty() {
        let rest = left.split_off(left.len().min(ENDPOINTS_MAX));
        let endpoints = std::mem::replace(&mut left, rest);
        wanted.push(Wanted { old: None, endpoints, delete: false });
    }
    // Of several slices that have become empty the first one may stay as the placeholder, the others go.
    let mut keep_empty = placeholder;
    if placeholder && wanted.is_empty() {
        wanted.push(Wanted { old: None, endpoints: Vec::new(), delete: false });
    }
    for one in &mut wanted {
        one.delete = one.endpoints.is_empty() && !std::mem::replace(&mut keep_empty, false);
    }
    wanted
}

/// What all slices of a group have in common.
struct Draft<'a> {
    service: &'a Service,
    family: Family,
    ports: &'a Ports,
    since: Timestamp,
}

impl Draft<'_> {
    fn write(&self, wanted: Wanted<'_>) -> Option<Write> {
        let name = self.service.metadata.name.clone().unwrap_or_default();
        let Some(old) = wanted.old else {
            let slice = EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{name}-")),
                    namespace: self.service.metadata.namespace.clone(),
                    labels: Some(self.labels()),
                    annotations: Some(self.annotations()),
                    owner_references: Some(vec![controller_reference(self.service)]),
                    ..ObjectMeta::default()
                },
                address_type: self.family.as_str().to_owned(),
                endpoints: Some(wanted.endpoints),
                ports: Some(endpoint_ports(self.ports)),
            };
            return Some(Write::create(&slice, None));
        };
        if wanted.delete {
            return Some(Write::delete(old, None));
        }
        let endpoints = old.endpoints.as_deref().unwrap_or_default();
        let same_ports = ports_of(old.ports.as_deref().unwrap_or_default()) == *self.ports;
        let labels = old.metadata.labels.clone().unwrap_or_default();
        let has_labels = self.labels().iter().all(|(key, value)| labels.get(key) == Some(value));
        if endpoints == wanted.endpoints.as_slice() && same_ports && has_labels {
            return None;
        }
        let mut slice = old.clone();
        slice.endpoints = Some(wanted.endpoints);
        slice.ports = Some(endpoint_ports(self.ports));
        slice.metadata.labels.get_or_insert_default().extend(self.labels());
        slice.metadata.annotations.get_or_insert_default().extend(self.annotations());
        Some(Write::replace(&slice))
    }

    /// The service's own labels, and ours.
    fn labels(&self) -> BTreeMap<String, String> {
        let meta = &self.service.metadata;
        let mut labels = meta.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        let ip = self.service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
        if ip == Some("None") {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), meta.name.clone().unwrap_or_default());
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        labels
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(TRIGGER_TIME.to_owned(), self.since.to_string())])
    }
}
