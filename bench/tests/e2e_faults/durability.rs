//! The server is killed again and again while a client writes. What it acknowledged is there afterwards, whole; the
//! nodes, their pods and the services do not notice.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fairlead_bench::{
    cluster::Cluster,
    scenario::{apply, load::Load},
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};
use nix::sys::signal::Signal;
use tokio::{sync::watch, time::timeout};

use crate::support::{eventually, pid_of, pids, signal};

/// How often the server is killed.
const KILLS: u32 = 5;
/// Objects that are acknowledged between two kills, at least.
const WRITES: usize = 15;
/// How long one request may take before the client tries again.
const REQUEST: Duration = Duration::from_secs(5);
/// Label of the objects.
const LABEL: &str = "written-by=durability";

/// Revision of every acknowledged object, by name.
type Acknowledged = BTreeMap<String, u64>;

/// Kills the server, looks, kills it again.
pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    apply::run(cluster).await?;
    let load = Load::start(cluster).await?;
    let before = (nodes_processes(cluster).await?, containers(cluster).await?);

    let (report, acknowledged) = watch::channel(Acknowledged::new());
    let stop = AtomicBool::new(false);
    let killing = async {
        let outcome = kill_again_and_again(cluster, acknowledged).await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    let (written, killed) = tokio::join!(write(cluster.client().await?, &report, &stop), killing);
    killed?;
    let attempted = written?;
    let stored = check(cluster, &report.borrow().clone()).await?;
    ensure!(stored <= attempted, "{stored} objects are stored, {attempted} were sent");

    let after = (nodes_processes(cluster).await?, containers(cluster).await?);
    ensure!(before == after, "nodes or pods noticed the server's absence: {before:?} became {after:?}");
    let total = load.keeps_going(cluster).await?;
    ensure!(total.breaks == 0, "services noticed the server's absence: {total}");

    kill_containerd(cluster).await?;
    ensure!(after.1 == containers(cluster).await?, "containers ended with containerd");
    let total = load.finish(cluster).await?;
    ensure!(total.breaks == 0, "services noticed that containerd was killed: {total}");
    Ok(())
}

/// containerd is started again, and a new pod starts under it.
async fn kill_containerd(cluster: &Cluster) -> Result<()> {
    let killed = pid_of(cluster, "containerd").await?;
    signal(killed, Signal::SIGKILL)?;
    eventually("containerd is started again", async || {
        Ok(pid_of(cluster, "containerd").await.ok().filter(|pid| *pid != killed))
    })
    .await?;
    let kubectl = cluster.kubectl();
    kubectl
        .run(&["run", "late", "--image=fairlead.dev/workload:demo", "--restart=Never", "--", "echo"])
        .await?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/late", "--timeout=40s"]).await?;
    kubectl.run(&["delete", "pod", "late", "--grace-period=1", "--timeout=40s"]).await.map(drop)
}

async fn kill_again_and_again(
    cluster: &Cluster,
    mut acknowledged: watch::Receiver<Acknowledged>,
) -> Result<()> {
    for _ in 0..KILLS {
        let enough = acknowledged.borrow().len() + WRITES;
        let more = acknowledged.wait_for(|all| all.len() >= enough);
        timeout(Duration::from_secs(60), more).await.context("the writer makes no progress")??;
        let killed = pid_of(cluster, "server").await?;
        signal(killed, Signal::SIGKILL)?;
        eventually("the server is started again", async || {
            Ok(pid_of(cluster, "server").await.ok().filter(|pid| *pid != killed))
        })
        .await?;
        let known = acknowledged.borrow().clone();
        check(cluster, &known).await?;
    }
    Ok(())
}

/// Writes one object after the other until `stop`. An object whose answer was lost is sent again under its name.
/// Returns how many were sent.
async fn write(
    client: kube::Client,
    report: &watch::Sender<Acknowledged>,
    stop: &AtomicBool,
) -> Result<usize> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("written-{sent:05}");
        sent += 1;
        let revision = eventually(&format!("{name} is acknowledged"), async || {
            let created = timeout(REQUEST, maps.create(&PostParams::default(), &object(&name))).await?;
            match created {
                // The answer to an earlier attempt was lost.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    revision(&timeout(REQUEST, maps.get(&name)).await??).map(Some)
                }
                created => revision(&created?).map(Some),
            }
        })
        .await?;
        report.send_modify(|all| {
            all.insert(name, revision);
        });
    }
    Ok(sent)
}

/// Every acknowledged object is stored as it was, and whatever else is stored is whole. Returns how many there are.
async fn check(cluster: &Cluster, acknowledged: &Acknowledged) -> Result<usize> {
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await?);
    let list = eventually("the server answers", async || {
        Ok(Some(timeout(REQUEST, maps.list(&ListParams::default().labels(LABEL))).await??))
    })
    .await?;
    let now: u64 = list.metadata.resource_version.clone().context("a list has no revision")?.parse()?;
    let stored: BTreeMap<_, _> = list.items.iter().map(|map| (map.name_any(), map)).collect();
    for (name, at) in acknowledged {
        let map = stored.get(name).with_context(|| format!("{name} was acknowledged and is gone"))?;
        ensure!(
            revision(map)? == *at && *at <= now,
            "{name} was acknowledged at {at}, the store at {now} has {map:?}"
        );
    }
    for (name, map) in &stored {
        ensure!(map.data == object(name).data, "{name} is not what was written: {map:?}");
    }
    Ok(stored.len())
}

/// An object that tells whether it is whole.
fn object(name: &str) -> ConfigMap {
    let (key, value) = LABEL.split_once('=').expect("a label has a value");
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(
            (0..8).map(|part| (format!("part-{part}"), format!("{name} {part} ").repeat(64))).collect(),
        ),
        ..ConfigMap::default()
    }
}

fn revision(map: &ConfigMap) -> Result<u64> {
    Ok(map.resource_version().context("an object has no revision")?.parse()?)
}

/// Agents and resolvers.
async fn nodes_processes(cluster: &Cluster) -> Result<Vec<(String, i32)>> {
    Ok(pids(cluster).await?.into_iter().filter(|(name, _)| name.starts_with("node-")).collect())
}

/// Containers and restarts of every pod.
async fn containers(cluster: &Cluster) -> Result<BTreeMap<String, Vec<(Option<String>, i32)>>> {
    let pods: Api<Pod> = Api::all(cluster.client().await?);
    let row = |pod: Pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let containers = statuses.map(|status| (status.container_id.clone(), status.restart_count)).collect();
        (pod.name_any(), containers)
    };
    Ok(pods.list(&ListParams::default()).await?.into_iter().map(row).collect())
}
