//! What happens to the cluster's Corefile, as Events of its ConfigMap.

use fairlead_dns::Notice;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::sync::mpsc;

use crate::identity::Identity;

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "coredns";

/// Posts an Event for each notice, for ever. Where that fails the log has it all the same.
pub(super) async fn post(identity: Identity, node: String, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        if let Err(error) = post_one(&identity, &node, &notice).await {
            tracing::warn!("cannot post an Event about the Corefile: {error:#}");
        }
    }
    std::future::pending::<()>().await;
}

async fn post_one(identity: &Identity, node: &str, notice: &Notice) -> anyhow::Result<()> {
    let events = Api::<Event>::namespaced(identity.client().await?, NAMESPACE);
    events.create(&PostParams::default(), &event(node, notice)).await?;
    Ok(())
}

fn event(node: &str, notice: &Notice) -> Event {
    let (kind, reason, message) = match notice {
        Notice::Reloaded => ("Normal", "CorefileReloaded", "the Corefile is served".to_owned()),
        Notice::Rejected(error) => {
            ("Warning", "CorefileRejected", format!("the Corefile does not work, the old one stays: {error}"))
        }
    };
    let now = Time(Timestamp::now());
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{CONFIG_MAP}-")),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("ConfigMap".into()),
            namespace: Some(NAMESPACE.into()),
            name: Some(CONFIG_MAP.into()),
            ..ObjectReference::default()
        },
        type_: Some(kind.into()),
        reason: Some(reason.into()),
        message: Some(message),
        source: Some(EventSource { component: Some("fairlead-dns".into()), host: Some(node.into()) }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}
