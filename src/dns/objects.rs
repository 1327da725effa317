//! A cluster from a file of manifests: to try a Corefile without a cluster.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use fairlead_feed::objects::Indexed;
use fairlead_model::{Change, Revision, Update};
use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(200);

/// The objects of a file as one snapshot, and another one whenever the file changes.
pub(super) fn updates(file: &Path) -> anyhow::Result<BoxStream<'static, Update>> {
    let first = snapshot(file, 1)?;
    let state = (file.to_path_buf(), modified(file), 1);
    let later = futures::stream::unfold(state, |(file, mut seen, sequence)| async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let now = modified(&file);
            if now == seen {
                continue;
            }
            seen = now;
            match snapshot(&file, sequence + 1) {
                Ok(update) => return Some((update, (file, seen, sequence + 1))),
                Err(error) => tracing::warn!("the objects stay as they were: {error:#}"),
            }
        }
    });
    Ok(futures::stream::iter([first]).chain(later).boxed())
}

fn modified(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn snapshot(file: &Path, sequence: u64) -> anyhow::Result<Update> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read objects from {}", file.display()))?;
    let mut changes = Vec::new();
    for (document, number) in Deserializer::from_str(&text).zip(1..) {
        let place = || format!("{}: document {number}", file.display());
        let value = Value::deserialize(document).with_context(place)?;
        match value.get("items").and_then(Value::as_sequence) {
            Some(items) => {
                for item in items {
                    changes.extend(change(item.clone()).with_context(place)?);
                }
            }
            None => changes.extend(change(value).with_context(place)?),
        }
    }
    Ok(Update { revision: Revision { epoch: 1, sequence }, snapshot: true, changes })
}

/// What an object means to DNS; other kinds mean nothing.
fn change(value: Value) -> anyhow::Result<Option<Change>> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match kind.as_str() {
        "Namespace" => Some(put::<Namespace>(value)?),
        "Node" => Some(put::<Node>(value)?),
        "Service" => Some(put::<Service>(value)?),
        "EndpointSlice" => Some(put::<EndpointSlice>(value)?),
        "Pod" => Some(put::<Pod>(value)?),
        "" if value.is_null() => None,
        "" => bail!("the object has no kind"),
        _ => None,
    })
}

fn put<K: Indexed + serde::de::DeserializeOwned>(value: Value) -> anyhow::Result<Change> {
    Ok(serde_yaml_ng::from_value::<K>(value)?.put())
}
