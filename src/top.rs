//! `fairlead top`: traffic per pod, from the counters in the kernel.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use fairlead_agent::PodReport;
use serde::Serialize;

use crate::{
    admin::{self, AdminSocket},
    cli::ClusterArgs,
    output::{self, Format, bytes, bytes_per_sec, columns, count, per_sec},
};

/// Arguments of `fairlead top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Traffic per pod
    Pods(PodsArgs),
}

const EXAMPLES: &str = "\
Examples:
  fairlead top pods -A
  fairlead top pods --namespace demo --interval 5 -o json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct PodsArgs {
    /// Namespace of the pods
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only pods of this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Seconds over which rates are measured; 0 shows totals only
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    interval: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A pod's totals and, over the interval, its rates. `rx` is what was delivered to the pod.
#[derive(Debug, Serialize)]
struct PodTraffic {
    namespace: String,
    pod: String,
    uid: String,
    node: String,
    addresses: Vec<IpAddr>,
    rx_bytes: u64,
    rx_packets: u64,
    tx_bytes: u64,
    tx_packets: u64,
    connections_opened: u64,
    connections_accepted: u64,
    connections_refused: u64,
    retransmits: u64,
    drops: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
}

/// Per second.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Rates {
    rx_bytes: f64,
    rx_packets: f64,
    tx_bytes: f64,
    tx_packets: f64,
    connections: f64,
}

impl PodTraffic {
    fn new(totals: PodReport, rates: Option<Rates>) -> Self {
        Self {
            namespace: totals.namespace,
            pod: totals.name,
            uid: totals.uid,
            node: totals.node,
            addresses: totals.addresses,
            rx_bytes: totals.receive_bytes,
            rx_packets: totals.receive_packets,
            tx_bytes: totals.transmit_bytes,
            tx_packets: totals.transmit_packets,
            connections_opened: totals.connections_opened,
            connections_accepted: totals.connections_accepted,
            connections_refused: totals.connections_refused,
            retransmits: totals.retransmits,
            drops: totals.drops,
            rates,
        }
    }
}

/// Prints a table of pods.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<()> {
    let (paths, What::Pods(args)) = (args.cluster.paths(), &args.what);
    let sockets = admin::sockets(&paths, args.node.as_deref())?;
    let pods = admin::runtime()?.block_on(measure(args, &sockets))?;
    if pods.is_empty() && args.output == Format::Table {
        return output::line(&match args.all_namespaces {
            true => "no pod has a place on the network".to_owned(),
            false => format!("no pod in the namespace {}; -A shows all", args.namespace),
        });
    }
    output::print(args.output, &pods, |pods| table(pods))
}

async fn measure(args: &PodsArgs, sockets: &[AdminSocket]) -> anyhow::Result<Vec<PodTraffic>> {
    if args.interval.is_zero() {
        let pods = read(args, sockets).await?;
        return Ok(pods.into_iter().map(|totals| PodTraffic::new(totals, None)).collect());
    }
    let (before, began) = (read(args, sockets).await?, Instant::now());
    tokio::time::sleep(args.interval).await;
    let (after, elapsed) = (read(args, sockets).await?, began.elapsed());
    let before: HashMap<_, _> = before.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    let traffic = |totals: PodReport| {
        let rates = before.get(totals.uid.as_str()).map(|earlier| rates(earlier, &totals, elapsed));
        PodTraffic::new(totals, rates)
    };
    Ok(after.into_iter().map(traffic).collect())
}

async fn read(args: &PodsArgs, sockets: &[AdminSocket]) -> anyhow::Result<Vec<PodReport>> {
    let mut pods = Vec::new();
    for socket in sockets {
        pods.extend(socket.get::<Vec<PodReport>>("/pods").await?);
    }
    pods.retain(|pod| args.all_namespaces || pod.namespace == args.namespace);
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(pods)
}

/// Counters only grow; one that shrank began anew, and its rate is not known.
fn rates(before: &PodReport, after: &PodReport, elapsed: Duration) -> Rates {
    let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / elapsed.as_secs_f64();
    let connections = |pod: &PodReport| pod.connections_opened + pod.connections_accepted;
    Rates {
        rx_bytes: rate(before.receive_bytes, after.receive_bytes),
        rx_packets: rate(before.receive_packets, after.receive_packets),
        tx_bytes: rate(before.transmit_bytes, after.transmit_bytes),
        tx_packets: rate(before.transmit_packets, after.transmit_packets),
        connections: rate(connections(before), connections(after)),
    }
}

fn table(pods: &[PodTraffic]) -> String {
    let header = [
        "NAMESPACE",
        "POD",
        "NODE",
        "IN/S",
        "OUT/S",
        "PACKETS/S",
        "CONN/S",
        "IN",
        "OUT",
        "PACKETS",
        "OPENED",
        "ACCEPTED",
        "REFUSED",
        "DROPS",
    ];
    let rows = pods.iter().map(|pod| {
        let rate = |show: fn(&Rates) -> String| pod.rates.as_ref().map_or_else(|| "-".to_owned(), show);
        vec![
            pod.namespace.clone(),
            pod.pod.clone(),
            pod.node.clone(),
            rate(|r| bytes_per_sec(r.rx_bytes)),
            rate(|r| bytes_per_sec(r.tx_bytes)),
            rate(|r| per_sec(r.rx_packets + r.tx_packets)),
            rate(|r| per_sec(r.connections)),
            bytes(pod.rx_bytes),
            bytes(pod.tx_bytes),
            count(pod.rx_packets + pod.tx_packets),
            count(pod.connections_opened),
            count(pod.connections_accepted),
            count(pod.connections_refused),
            count(pod.drops.values().sum()),
        ]
    });
    columns(&header, rows)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=3600.0).contains(&value) => Ok(Duration::from_secs_f64(value)),
        _ => Err("not a number of seconds from 0 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairlead_agent::PodReport;
    use serde_json::json;

    use super::{PodTraffic, rates, seconds, table};

    fn pod(receive_bytes: u64) -> PodReport {
        serde_json::from_value(json!({
            "namespace": "demo", "name": "echo", "uid": "u", "node": "node-1", "addresses": ["10.244.0.5"],
            "interface": "f0", "receive_packets": 4, "receive_bytes": receive_bytes, "transmit_packets": 6,
            "transmit_bytes": 500, "connections_opened": 0, "connections_accepted": 3, "connections_refused": 0,
            "retransmits": 0, "drops": {"no-endpoints": 2}
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_per_second_and_a_counter_that_began_anew_has_none() {
        let two = Duration::from_secs(2);
        assert_eq!(rates(&pod(1000), &pod(5096), two).rx_bytes, 2048.0);
        assert_eq!(rates(&pod(5000), &pod(10), two).rx_bytes, 0.0);
    }

    #[test]
    fn a_new_pod_has_totals_and_no_rates() {
        let text = table(&[PodTraffic::new(pod(2048), None)]);
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(&row[..7], ["demo", "echo", "node-1", "-", "-", "-", "-"]);
        assert_eq!(&row[7..], ["2.0", "KiB", "500", "B", "10", "0", "3", "0", "2"]);
    }

    #[test]
    fn intervals_are_checked() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "", "x", "inf", "NaN", "4000"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
