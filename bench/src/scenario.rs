//! The scenario: what a user does in the first minutes, with real parts, and what has to hold.
//!
//! Each step does something through kubectl, looks at what happened, and fails when it is not what it must be. The demo
//! prints what the steps return; the end-to-end test only needs them to succeed.

pub mod apply;
pub mod client;
pub mod load;
pub mod observe;
pub mod replace;
pub mod restart;

use anyhow::Result;

use crate::{
    cluster::Cluster,
    screen::{Step, aside, detail},
};

/// Namespace of everything the scenario applies.
pub const NAMESPACE: &str = "demo";

/// Runs every step on a cluster that is up, and prints what happened.
pub async fn run(cluster: &Cluster) -> Result<()> {
    let step = Step::begin("Deployment, Service and headless Service applied; pods Ready on both nodes");
    let placed = apply::run(cluster).await?;
    step.done();
    placed.print();

    let step =
        Step::begin("Client pod: names resolved through cluster DNS, 1 000 requests on new connections");
    let report = client::run(cluster).await?;
    step.done();
    report.print(&placed);

    let step = Step::begin("Steady load and one held connection started");
    let load = load::Load::start(cluster).await?;
    step.done();

    let step = Step::begin("A backend pod deleted under load");
    let replaced = replace::run(cluster, &load).await?;
    step.done();
    replaced.print();

    let step = Step::begin("Every node agent killed with SIGKILL under load");
    let restarted = restart::run(cluster, &load).await?;
    step.done();
    restarted.print();

    let step = Step::begin("The load stopped: not one request had failed");
    let total = load.finish(cluster).await?;
    step.done();
    detail(total.to_string());

    let step = Step::begin("Flow records and per-pod counters, as the kernel wrote them");
    let observed = observe::run(cluster).await?;
    step.done();
    for line in observed.lines() {
        aside(line);
    }
    Ok(())
}
