//! One writer and many watchers: how late each event comes, and what it costs the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::process::{self, Connection, Server};
use super::quantile;

/// Events of one round, and the time between two of them.
const EVENTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(40);
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(120);
const MARK: &str = "\"at\":\"";
const OK: &[u8] = b"HTTP/1.1 200 ";
const END_OF_HEADERS: &[u8] = b"\r\n\r\n";

/// What was measured of one number of watchers.
#[derive(Debug, Serialize)]
pub struct Fanout {
    /// How many watchers there were.
    pub watchers: usize,
    /// Delay that half of the deliveries had at most: the write began until the watcher had read the line.
    pub p50_ms: f64,
    /// Delay that 99 of a hundred had at most.
    pub p99_ms: f64,
    /// Processor time of the server for each event and watcher, the write included.
    pub cpu_us_per_event: f64,
    /// And of this process, which has the same processors.
    pub client_cpu_us_per_event: f64,
}

/// Writes at a steady pace while so many watch.
pub(super) async fn run(server: &Server, watchers: usize) -> Result<Fanout> {
    let name = format!("fanout-{watchers}");
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client.clone());
    let map = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    let created = maps.create(&PostParams::default(), &map).await?;
    let version = created.metadata.resource_version.context("a map without a resource version")?;
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={version}&timeoutSeconds=300&\
         fieldSelector=metadata.name%3D{name}"
    );
    let epoch = Instant::now();
    let ready = Arc::new(Barrier::new(watchers + 1));
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        tasks.spawn(follow(server.dial().await?, path.clone(), epoch, ready.clone()));
    }
    ready.wait().await;
    let (before, own_before) = (server.cpu()?, process::own_cpu()?);
    for _ in 0..EVENTS {
        let at = epoch.elapsed().as_nanos().to_string();
        let patch = Patch::Merge(json!({ "data": { "at": at } }));
        maps.patch(&name, &PatchParams::default(), &patch).await?;
        sleep(PAUSE).await;
    }
    let mut delays = Vec::with_capacity(watchers * EVENTS);
    let collect = async {
        while let Some(task) = tasks.join_next().await {
            delays.extend(task??);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, collect).await.context("some watchers have not seen every event")??;
    let each =
        |now: Duration, before| now.saturating_sub(before).as_secs_f64() * 1e6 / (watchers * EVENTS) as f64;
    let cpu_us_per_event = each(server.cpu()?, before);
    let client_cpu_us_per_event = each(process::own_cpu()?, own_before);
    delays.sort_unstable();
    let ms = |share| quantile(&delays, share).as_secs_f64() * 1e3;
    let (p50_ms, p99_ms) = (ms(0.5), ms(0.99));
    Ok(Fanout { watchers, p50_ms, p99_ms, cpu_us_per_event, client_cpu_us_per_event })
}

/// One watcher: the delays of every event. It reads its connection itself and decodes no lines, because this process shares
/// the processors with the server, which a thousand watchers elsewhere would not.
async fn follow(
    mut connection: Connection,
    path: String,
    epoch: Instant,
    ready: Arc<Barrier>,
) -> Result<Vec<Duration>> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", process::HOST);
    connection.write_all(request.as_bytes()).await?;
    // What was read and is not a whole line yet. The headers and the lengths of chunks are lines too.
    let mut read = BytesMut::new();
    while !read.windows(END_OF_HEADERS.len()).any(|bytes| bytes == END_OF_HEADERS) {
        ensure!(connection.read_buf(&mut read).await? > 0, "a watch was not answered");
    }
    ensure!(read.starts_with(OK), "a watch was refused: {}", String::from_utf8_lossy(&read));
    ready.wait().await;
    let mut delays = Vec::with_capacity(EVENTS);
    loop {
        let now = epoch.elapsed();
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line = read.split_to(end + 1);
            let line = std::str::from_utf8(&line).context("a line that is no text")?;
            let Some((_, rest)) = line.split_once(MARK) else { continue };
            let at = rest.split('"').next().unwrap_or_default();
            delays.push(now.saturating_sub(Duration::from_nanos(at.parse()?)));
        }
        if delays.len() >= EVENTS {
            return Ok(delays);
        }
        if connection.read_buf(&mut read).await? == 0 {
            bail!("a watch ended early");
        }
    }
}
