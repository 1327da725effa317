//! `fairlead dns query`: asks a server and shows the answer.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_dns::client;

use super::dns_address;
use crate::output;

/// Arguments of `fairlead dns query`.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// What to ask for
    name: String,
    /// Type of record
    #[arg(default_value = "A", value_name = "TYPE")]
    rtype: String,
    /// Whom to ask [default: the first nameserver of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = dns_address)]
    server: Option<SocketAddr>,
    /// Ask over TCP
    #[arg(long)]
    tcp: bool,
    /// Show which plugin did what; the server tells this to clients on its own host
    #[arg(long)]
    trace: bool,
}

/// Asks once; an answer that is a failure is one here, too.
pub(super) fn run(args: &QueryArgs) -> anyhow::Result<()> {
    let server = match args.server {
        Some(server) => server,
        None => name_server()?,
    };
    let question =
        client::Question { name: &args.name, rtype: &args.rtype, tcp: args.tcp, trace: args.trace };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let report = runtime.block_on(client::ask(server, &question))?;
    if args.trace && report.trace.is_none() {
        output::line("the server does not say which plugin did what: it is another one, or on another host")?;
    }
    for line in report.trace.iter().flat_map(|trace| trace.lines()) {
        output::line(line)?;
    }
    output::line(&format!("{} from {server}{}", report.status, if report.tcp { " over TCP" } else { "" }))?;
    for record in &report.records {
        output::line(&format!("  {record}"))?;
    }
    if report.failed { bail!("{} {}: {}", args.name, args.rtype, report.status) } else { Ok(()) }
}

fn name_server() -> anyhow::Result<SocketAddr> {
    let text =
        std::fs::read_to_string("/etc/resolv.conf").context("cannot read /etc/resolv.conf; give --server")?;
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    Ok((server.context("/etc/resolv.conf has no nameserver; give --server")?, super::PORT).into())
}
