//! `fairlead flows`: connections between pods and services, as the nodes recorded them.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use fairlead_flows::Record;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use crate::{
    admin::{self, AdminSocket},
    cli::ClusterArgs,
    output::{self, Format},
};

mod record;

use record::{Line, is_second_view};

const EXAMPLES: &str = "\
Examples:
  fairlead flows --last 20                    The 20 newest records
  fairlead flows --follow --pod demo/client   Connections of a pod, as they happen
  fairlead flows --verdict denied             What was refused, and why
  fairlead flows --follow -o json             A JSON document per line";

/// How many records are shown when nobody said how many.
const LAST: usize = 100;

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum VerdictFilter {
    /// Established.
    Forwarded,
    /// Refused or dropped.
    Denied,
}

/// Arguments of `fairlead flows`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Go on with new records until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only connections of this pod, at either end
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pod: Option<String>,
    /// Only connections that ended so
    #[arg(long, value_enum)]
    verdict: Option<VerdictFilter>,
    /// Only what this node recorded
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Show a connection between two pods as both ends saw it
    #[arg(long)]
    both_ends: bool,
    /// How many of the newest records to begin with [default: 100, or none with --follow]
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// How to print; with --follow, JSON is a document per line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints what is there, or with `--follow` what comes.
pub(crate) fn run(args: &FlowsArgs) -> anyhow::Result<()> {
    let sockets = admin::sockets(&args.cluster.paths(), args.node.as_deref())?;
    admin::runtime()?
        .block_on(async { if args.follow { follow(args, sockets).await } else { show(args, sockets).await } })
}

async fn show(args: &FlowsArgs, sockets: Vec<AdminSocket>) -> anyhow::Result<()> {
    let records = remembered(args, sockets, args.last.unwrap_or(LAST)).await?;
    if records.is_empty() && args.output == Format::Table {
        return output::line("no flow records match; `--follow` waits for new ones");
    }
    output::print(args.output, &records, |records| {
        records.iter().map(|record| format!("{}\n", Line(record))).collect()
    })
}

/// The streams are opened before what is remembered is read, so that nothing falls between the two.
async fn follow(args: &FlowsArgs, sockets: Vec<AdminSocket>) -> anyhow::Result<()> {
    let begin = output::rfc3339_now();
    let mut streams = Vec::new();
    for socket in sockets.clone() {
        streams.push(socket.lines(request(args, true)).await?.boxed());
    }
    for record in remembered(args, sockets, args.last.unwrap_or(0)).await?.iter().filter(|r| r.time < begin) {
        print(args.output, record)?;
    }
    let mut lines = stream::select_all(streams);
    while let Some(line) = lines.try_next().await? {
        match parse(&line)? {
            Entry::Missed { missed } => {
                tracing::warn!("{missed} records came faster than they could be read and are not shown");
            }
            Entry::Flow(record) if wanted(args, &record) => print(args.output, &record)?,
            Entry::Flow(_) => {}
        }
    }
    Ok(())
}

/// The newest `last` records of all nodes, oldest first.
async fn remembered(args: &FlowsArgs, sockets: Vec<AdminSocket>, last: usize) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for socket in sockets {
        let mut lines = std::pin::pin!(socket.lines(request(args, false)).await?);
        while let Some(line) = lines.try_next().await? {
            if let Entry::Flow(record) = parse(&line)?
                && wanted(args, &record)
            {
                records.push(*record);
            }
        }
    }
    // RFC 3339 in UTC with a fixed number of digits sorts as text.
    records.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(records.split_off(records.len().saturating_sub(last)))
}

/// What one node recorded is shown whole; of the whole cluster, each connection once.
fn wanted(args: &FlowsArgs, record: &Record) -> bool {
    args.both_ends || args.node.is_some() || !is_second_view(record)
}

fn request(args: &FlowsArgs, follow: bool) -> String {
    let verdict = args.verdict.map(|verdict| match verdict {
        VerdictFilter::Forwarded => "forwarded".to_owned(),
        VerdictFilter::Denied => "denied".to_owned(),
    });
    admin::query(
        "/flows",
        &[
            ("follow", follow.then(|| "true".to_owned())),
            // Only what comes: what is remembered is read apart.
            ("since", follow.then(|| "0".to_owned())),
            ("pod", args.pod.clone()),
            ("verdict", verdict),
        ],
    )
}

/// A line of an agent's answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    /// The reader was too slow.
    Missed {
        missed: u64,
    },
    Flow(Box<Record>),
}

fn parse(line: &str) -> anyhow::Result<Entry> {
    serde_json::from_str(line).with_context(|| format!("this version does not know the flow record {line}"))
}

fn print(format: Format, record: &Record) -> anyhow::Result<()> {
    match format {
        Format::Json => output::line(&serde_json::to_string(record)?),
        Format::Yaml => output::line(&format!("---\n{}", serde_yaml_ng::to_string(record)?.trim_end())),
        Format::Table => output::line(&Line(record).to_string()),
    }
}
