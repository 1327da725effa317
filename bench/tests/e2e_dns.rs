//! The cluster's DNS as its users meet it: glibc clients in pods while daemons die, and a Corefile that is edited with
//! kubectl. Needs root and containerd.

#[path = "e2e_dns/corefile.rs"]
mod corefile;
#[path = "e2e_dns/kills.rs"]
mod kills;
#[path = "e2e_dns/look_ups.rs"]
mod look_ups;
#[path = "e2e_faults/support.rs"]
#[expect(dead_code, reason = "the tests of faults need more of it")]
mod support;

use anyhow::Result;

use crate::support::with_cluster;

#[tokio::test(flavor = "multi_thread")]
async fn dns_in_a_cluster_loses_no_look_up_and_follows_its_config_map() -> Result<()> {
    with_cluster("dns", 17_480, &[], async |cluster| {
        look_ups::start(cluster).await?;
        kills::run(cluster).await?;
        look_ups::without_a_stall(cluster).await?;
        corefile::run(cluster).await
    })
    .await
}
