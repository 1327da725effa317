//! Labels on containerd's containers, by which the kubelet finds its pods again after a restart.

use std::collections::HashMap;

use containerd_client::services::v1::Container;
use jiff::Timestamp;

use super::record::Termination;
use crate::{network::PodIdentity, oci::sha256_hex};

const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "fairlead.dev/attempt";
const EXIT_CODE: &str = "fairlead.dev/exit-code";
const EXIT_REASON: &str = "fairlead.dev/exit-reason";
const STARTED_AT: &str = "fairlead.dev/started-at";
const FINISHED_AT: &str = "fairlead.dev/finished-at";

/// A container that was there before this kubelet.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) pod: PodIdentity,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) image: String,
    /// The OCI process.
    pub(crate) process: serde_json::Value,
    /// Set when its end was recorded.
    pub(crate) end: Option<Termination>,
    pub(crate) created_at: Option<Timestamp>,
}

/// The identifier of an attempt; the same for the same attempt.
pub(crate) fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    sha256_hex(format!("{uid}/{name}/{attempt}").as_bytes())
}

/// Labels of a new container.
pub(crate) fn new(pod: &PodIdentity, name: &str, attempt: u32) -> HashMap<String, String> {
    [
        (POD_UID, pod.uid.clone()),
        (POD_NAME, pod.name.clone()),
        (POD_NAMESPACE, pod.namespace.clone()),
        (CONTAINER_NAME, name.to_owned()),
        (ATTEMPT, attempt.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Labels that record an end. The message is in a file of its own.
pub(crate) fn end(termination: &Termination) -> HashMap<String, String> {
    let mut labels = vec![
        (EXIT_CODE, termination.exit_code.to_string()),
        (EXIT_REASON, termination.reason.clone()),
        (FINISHED_AT, termination.finished_at.to_string()),
    ];
    labels.extend(termination.started_at.map(|at| (STARTED_AT, at.to_string())));
    labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Reads a container; `None` when it is not one of ours.
pub(crate) fn read(container: &Container) -> Option<Found> {
    let label = |key: &str| container.labels.get(key).cloned();
    let time = |key: &str| label(key).and_then(|text| text.parse::<Timestamp>().ok());
    let end = label(EXIT_CODE).and_then(|code| code.parse().ok()).map(|exit_code| Termination {
        id: container.id.clone(),
        exit_code,
        reason: label(EXIT_REASON).unwrap_or_default(),
        message: String::new(),
        started_at: time(STARTED_AT),
        finished_at: time(FINISHED_AT).unwrap_or_else(Timestamp::now),
    });
    let spec: Option<serde_json::Value> =
        container.spec.as_ref().and_then(|spec| serde_json::from_slice(&spec.value).ok());
    let created = container.created_at.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    Some(Found {
        id: container.id.clone(),
        pod: PodIdentity { namespace: label(POD_NAMESPACE)?, name: label(POD_NAME)?, uid: label(POD_UID)? },
        name: label(CONTAINER_NAME)?,
        attempt: label(ATTEMPT)?.parse().ok()?,
        image: container.image.clone(),
        process: spec.map(|spec| spec["process"].clone()).unwrap_or_default(),
        end,
        created_at: created,
    })
}
