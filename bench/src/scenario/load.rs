//! Steady load on the service and one connection that is held open, in a pod that runs through the other steps.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::NAMESPACE;
use crate::cluster::Cluster;

const MANIFEST: &str = include_str!("../../manifests/load.yaml");

/// How long the load may take to show that it goes on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Requests the load must make after a disturbance before it counts as going on.
const PROOF: u64 = 200;

/// The load pod.
pub struct Load(());

/// What the load has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Round trips on the held connection.
    pub round_trips: u64,
    /// How often the held connection broke.
    pub breaks: u64,
    problems: Vec<String>,
}

impl Load {
    /// Starts the pod and waits until it makes requests.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let kubectl = cluster.kubectl();
        kubectl.apply(MANIFEST).await?;
        kubectl.run(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/load", "--timeout=30s"]).await?;
        let load = Self(());
        load.keeps_going(cluster).await?;
        Ok(load)
    }

    /// Waits until more requests and round trips are done; fails when any request has failed.
    pub async fn keeps_going(&self, cluster: &Cluster) -> Result<Total> {
        let before = self.total(cluster).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = self.total(cluster).await?;
            ensure!(now.failed == 0, "requests failed under load: {}", now.problems.join("; "));
            if now.answered >= before.answered + PROOF && now.round_trips > before.round_trips {
                return Ok(now);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the load stands still: first {before}, later {now}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops the pod and returns the last sums.
    pub async fn finish(self, cluster: &Cluster) -> Result<Total> {
        let total = self.keeps_going(cluster).await?;
        cluster.kubectl().run(&["-n", NAMESPACE, "delete", "pod", "load"]).await?;
        Ok(total)
    }

    /// What the pod has reported so far.
    pub async fn total(&self, cluster: &Cluster) -> Result<Total> {
        let mut total = Total::default();
        for container in ["requests", "held"] {
            let text = cluster.kubectl().run(&["-n", NAMESPACE, "logs", "load", "-c", container]).await?;
            for line in text.lines() {
                let line: Value =
                    serde_json::from_str(line).with_context(|| format!("the load printed {line:?}"))?;
                total.read(&line);
            }
        }
        Ok(total)
    }
}

impl Total {
    fn read(&mut self, line: &Value) {
        let sums = [
            ("answered", &mut self.answered),
            ("failed", &mut self.failed),
            ("round_trips", &mut self.round_trips),
            ("breaks", &mut self.breaks),
        ];
        for (key, sum) in sums {
            *sum = line[key].as_u64().unwrap_or(*sum);
        }
        for key in ["failure", "break"] {
            if let Some(problem) = line[key].as_str() {
                self.problems.push(format!("{key} at {}: {problem}", line["at_ms"]));
            }
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, failed, round_trips, breaks, .. } = self;
        write!(
            f,
            "{answered} requests answered, {failed} failed; {round_trips} round trips on the held connection, {breaks} breaks"
        )
    }
}
