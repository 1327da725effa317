//! What goes wrong, and what a user then sees: real binary, real containers, real kills. Needs root and containerd.
//!
//! A test is one cluster, or two; what can share a cluster does.

#[path = "e2e_faults/crash.rs"]
mod crash;
#[path = "e2e_faults/durability.rs"]
mod durability;
#[path = "e2e_faults/node_silent.rs"]
mod node_silent;
#[path = "e2e_faults/pods.rs"]
mod pods;
#[path = "e2e_faults/refusals.rs"]
mod refusals;
#[path = "e2e_faults/resolver.rs"]
mod resolver;
#[path = "e2e_faults/support.rs"]
mod support;

use anyhow::Result;

use crate::support::with_cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_or_machine_is_one_sentence_and_leaves_nothing() -> Result<()> {
    refusals::before_a_cluster_is_made().await?;
    refusals::state_in_use().await?;
    refusals::state_of_a_newer_version().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_cannot_run_say_why_and_a_silent_node_loses_its_pods() -> Result<()> {
    with_cluster("pods", 17_460, &["--node-monitor-grace", "12"], async |cluster| {
        pods::run(cluster).await?;
        node_silent::run(cluster).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_acknowledged_survives_kill_9_and_nodes_do_not_notice() -> Result<()> {
    with_cluster("store", 17_461, &[], durability::run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_killed_under_load_loses_no_look_up() -> Result<()> {
    with_cluster("resolver", 17_464, &[], resolver::run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_half_a_start_has_made_is_removed() -> Result<()> {
    crash::in_the_middle_of_a_start(17_470).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cluster_is_removed_whole_beside_another_that_goes_on() -> Result<()> {
    with_cluster("calm", 17_462, &[], async |calm| crash::run(calm, 17_463).await).await
}
