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
    let changes = follow(file, |text| {
        let changes = read(text)?.into_iter().zip(1..).filter_map(|(object, number)| {
            change(object).with_context(|| format!("object {number}")).transpose()
        });
        changes.collect::<anyhow::Result<Vec<Change>>>()
    })?;
    let numbered = changes.zip(futures::stream::iter(1..));
    Ok(numbered
        .map(|(changes, sequence)| Update {
            revision: Revision { epoch: 1, sequence },
            snapshot: true,
            changes,
        })
        .boxed())
}

/// What a file says, and again whenever it says something else.
pub(super) fn follow<T: Send + 'static>(
    file: &Path,
    read: impl Fn(&str) -> anyhow::Result<T> + Send + Sync + 'static,
) -> anyhow::Result<BoxStream<'static, T>> {
    let open = move |file: &Path| {
        let problem = || format!("cannot read objects from {}", file.display());
        std::fs::read_to_string(file).map_err(Into::into).and_then(|text| read(&text)).with_context(problem)
    };
    let first = open(file)?;
    let state = (file.to_path_buf(), modified(file), open);
    let later = futures::stream::unfold(state, |(file, mut seen, open)| async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let now = modified(&file);
            if now == seen {
                continue;
            }
            seen = now;
            match open(&file) {
                Ok(value) => return Some((value, (file, seen, open))),
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

/// The objects of a text of manifests, lists taken apart.
pub(super) fn read(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (document, number) in Deserializer::from_str(text).zip(1..) {
        let value = Value::deserialize(document).with_context(|| format!("document {number}"))?;
        match value.get("items").and_then(Value::as_sequence) {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(value),
        }
    }
    Ok(objects)
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
