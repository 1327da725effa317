//! `fairlead dns`: the cluster DNS server of a node.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use fairlead_dns::{Config, DnsServer, Inherited, feed_updates};

use crate::{
    cli::absolute_path,
    daemon,
    identity::{Identity, host_name},
    listen,
};

const EXAMPLES: &str = "\
Examples:
  fairlead dns --listen 192.0.2.17 --forward 192.0.2.53
  fairlead dns --listen 127.0.0.1:5353 --kubeconfig ./node.kubeconfig

Sockets passed by systemd (Sockets=) for an address of --listen are used instead of new ones; while they stay open there,
no question is lost when this process is replaced.";

/// Where DNS is spoken when no port is given (RFC 1035, section 4.2).
const PORT: u16 = 53;

/// Arguments of `fairlead dns`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DnsArgs {
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The node's credentials
    #[arg(long, value_name = "FILE", value_parser = absolute_path, default_value = "/etc/fairlead/node.kubeconfig")]
    kubeconfig: PathBuf,
    /// The feed [default: port 6444 of the API server]
    #[arg(long, value_name = "URL")]
    feed: Option<String>,
    /// Address to answer on, UDP and TCP; a real one, not 0.0.0.0; may be repeated
    #[arg(long, value_name = "ADDRESS[:PORT]", required = true, value_parser = dns_address)]
    listen: Vec<SocketAddr>,
    /// Server to ask for names outside the cluster; may be repeated, in order of preference [default: none, refuse them]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = dns_address)]
    forward: Vec<SocketAddr>,
    /// UDP sockets of each address, each with a thread [default: one per processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Where to keep the names of the cluster for the next start [default: nowhere]
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    snapshot: Option<PathBuf>,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Where to serve Prometheus metrics [`none` serves none]
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9153", value_parser = optional_address)]
    metrics: OptionalAddress,
    /// Where to serve /health [default: none]
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "none", hide_default_value = true, value_parser = optional_address)]
    health: OptionalAddress,
    /// Where to serve /ready [`none` serves none]
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8181", value_parser = optional_address)]
    ready: OptionalAddress,
}

/// An address that may be switched off.
#[derive(Clone, Copy, Debug)]
struct OptionalAddress(Option<SocketAddr>);

/// Serves until SIGINT or SIGTERM.
pub(crate) fn run(args: DnsArgs) -> anyhow::Result<()> {
    let identity = Identity::read(&args.kubeconfig)?;
    let feed = identity.feed(args.feed.as_deref())?;
    let name = args.name.map_or_else(host_name, Ok)?;
    let mut config = Config {
        listen: args.listen,
        cluster_domain: args.cluster_domain,
        upstreams: args.forward,
        metrics_listen: args.metrics.0,
        health_listen: args.health.0,
        ready_listen: args.ready.0,
        snapshot: args.snapshot,
        inherited: Inherited::new(listen::Inherited::take()?.into_sockets()),
        ..Config::default()
    };
    if let Some(workers) = args.workers {
        config.workers = workers.into();
    }
    daemon::run(async |shutdown| {
        let server = DnsServer::new(config, feed_updates(feed, &name)).await?;
        tracing::info!(addresses = ?server.addresses(), "answering");
        Ok(server.run(shutdown).await?)
    })
}

fn dns_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok((address, PORT).into()),
        Err(_) => text.parse().map_err(|_| "not an IP address with an optional port".to_owned()),
    }
}

fn optional_address(text: &str) -> Result<OptionalAddress, String> {
    match text {
        "none" => Ok(OptionalAddress(None)),
        _ => text
            .parse()
            .map(|address| OptionalAddress(Some(address)))
            .map_err(|_| "not ADDRESS:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::dns_address;

    #[test]
    fn the_port_of_dns_need_not_be_given() {
        for (text, want) in [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5353", "10.0.0.1:5353"),
            ("fd00::1", "[fd00::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
        ] {
            assert_eq!(dns_address(text).unwrap().to_string(), want);
        }
        assert!(dns_address("localhost").is_err());
    }
}
