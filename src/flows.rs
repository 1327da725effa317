//! `fairlead flows`: connections between pods and services, as the nodes recorded them.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use crate::{
    admin::{self, AdminSocket},
    cli::ClusterArgs,
    output::{self, Format},
};

mod record;

use record::FlowRecord;

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
    admin::runtime()?.block_on(async {
        if args.follow { follow(args, sockets).await } else { show(args, sockets).await }
    })
}

async fn show(args: &FlowsArgs, sockets: Vec<AdminSocket>) -> anyhow::Result<()> {
    let last = args.last.unwrap_or(LAST);
    let mut records = Vec::<(u64, Value)>::new();
    for socket in sockets {
        let lines = socket.lines(request(args, last)).await?;
        let mut parsed: Vec<_> = lines.map(|line| stamped(&line?)).try_collect().await?;
        records.append(&mut parsed);
    }
    records.sort_by_key(|(time, _)| *time);
    let records: Vec<_> = records.split_off(records.len().saturating_sub(last));
    let records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
    if args.output == Format::Table {
        return records.iter().try_for_each(|record| print(args.output, record));
    }
    output::print(args.output, &records, |_| String::new())
}

async fn follow(args: &FlowsArgs, sockets: Vec<AdminSocket>) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    for socket in sockets {
        streams.push(socket.lines(request(args, args.last.unwrap_or(0))).await?.boxed());
    }
    let mut lines = stream::select_all(streams);
    while let Some(line) = lines.try_next().await? {
        print(args.output, &stamped(&line)?.1)?;
    }
    Ok(())
}

fn request(args: &FlowsArgs, last: usize) -> String {
    let verdict = args.verdict.map(|verdict| match verdict {
        VerdictFilter::Forwarded => "forwarded".to_owned(),
        VerdictFilter::Denied => "denied".to_owned(),
    });
    admin::query(
        "/flows",
        &[
            ("follow", args.follow.then(|| "true".to_owned())),
            ("pod", args.pod.clone()),
            ("verdict", verdict),
            ("last", Some(last.to_string())),
        ],
    )
}

/// A record as the agent wrote it, with its time for sorting.
fn stamped(line: &str) -> anyhow::Result<(u64, Value)> {
    let record: Value = serde_json::from_str(line).context("a node wrote a flow record that is not JSON")?;
    let time = record.get("time_unix_ns").and_then(Value::as_u64).unwrap_or_default();
    Ok((time, record))
}

fn print(format: Format, record: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => output::line(&record.to_string()),
        Format::Yaml => output::line(&format!("---\n{}", serde_yaml_ng::to_string(record)?.trim_end())),
        Format::Table => output::line(&FlowRecord::deserialize_from(record)?.to_string()),
    }
}
