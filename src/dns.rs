//! `fairlead dns`: the DNS server of a node, or of anybody with a Corefile.

mod events;
mod labels;
mod objects;
mod query;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use fairlead_dns::{At, Config, Corefile, DnsServer, Inherited, Labels, feed_updates};
use fairlead_model::Update;
use futures::{StreamExt as _, stream::BoxStream};

use crate::{
    cli::absolute_path,
    daemon,
    identity::{Identity, host_name},
    listen,
    paths::DNS_HEARTBEAT,
};

const EXAMPLES: &str = "\
Examples:
  fairlead dns --listen 192.0.2.17 --forward 192.0.2.53
  fairlead dns --listen 127.0.0.1:5353 --kubeconfig ./node.kubeconfig
  fairlead dns --corefile ./Corefile
  fairlead dns --corefile ./Corefile --objects ./cluster.yaml
  fairlead dns query kubernetes.default.svc.cluster.local --server 127.0.0.1:5353 --trace

Sockets passed by systemd (Sockets=) for an address that is served are used instead of new ones; while they stay open
there, no question is lost when this process is replaced.";

/// Where DNS is spoken when no port is given (RFC 1035, section 4.2).
const PORT: u16 = 53;
/// A node's credentials.
const KUBECONFIG: &str = "/etc/fairlead/node.kubeconfig";

/// Arguments of `fairlead dns`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct DnsArgs {
    /// Instead of serving.
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ask a DNS server, and show which plugin did what
    Query(query::QueryArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// What to serve, as CoreDNS reads it [default: ConfigMap kube-system/coredns, and kubeadm's without one]
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    corefile: Option<PathBuf>,
    /// Take the cluster's services, slices, pods and namespaces from a file of manifests instead of the feed
    #[arg(long, value_name = "FILE", value_parser = absolute_path, conflicts_with_all = ["kubeconfig", "feed"])]
    objects: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The node's credentials [default: /etc/fairlead/node.kubeconfig, none with --corefile]
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    kubeconfig: Option<PathBuf>,
    /// The feed [default: port 6444 of the API server]
    #[arg(long, value_name = "URL")]
    feed: Option<String>,
    /// Address to answer on, where the Corefile names none; may be repeated [default: all]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = dns_address)]
    listen: Vec<SocketAddr>,
    /// Server to ask for names outside the cluster, also in the place of /etc/resolv.conf; may be repeated, in order of preference [default: none, refuse them]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = dns_address)]
    forward: Vec<SocketAddr>,
    /// UDP sockets of each address, each with a thread [default: one per processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Where to keep the names of the cluster for the next start [default: nowhere]
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    snapshot: Option<PathBuf>,
    /// Unix socket of the node's agent, which leads look-ups to other nodes unless it sees signs of life there [default: /run/fairlead/nodes/NAME/dns.sock, none with --corefile]
    #[arg(long, value_name = "SOCKET", value_parser = absolute_path)]
    heartbeat: Option<PathBuf>,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Where to serve Prometheus metrics [default: as the Corefile says; 127.0.0.1:9153 without --corefile; `none` serves none]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint)]
    metrics: Option<At>,
    /// Where to serve /health [default: as the Corefile says; none without --corefile]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint)]
    health: Option<At>,
    /// Where to serve /ready [default: as the Corefile says; 127.0.0.1:8181 without --corefile; `none` serves none]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint)]
    ready: Option<At>,
}

/// Serves until SIGINT or SIGTERM, or asks.
pub(crate) fn run(args: DnsArgs) -> anyhow::Result<()> {
    match args.action {
        Some(Action::Query(args)) => query::run(&args),
        None => serve(args.serve),
    }
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let identity = identity(&args)?;
    let updates = updates(&args, identity.as_ref())?;
    let node = args.name.clone().map_or_else(host_name, Ok)?;
    let local = |port| At::Address(([127, 0, 0, 1], port).into());
    let alone = args.corefile.is_some();
    let usual = || Path::new("/run/fairlead/nodes").join(&node).join(DNS_HEARTBEAT);
    let heartbeat = args.heartbeat.or_else(|| (!alone).then(usual));
    let labels = args.objects.map(|file| Arc::new(labels::InFile(file)) as Arc<dyn Labels>);
    let in_cluster = || identity.clone().map(|identity| Arc::new(labels::InCluster(identity)) as _);
    let mut config = Config {
        labels: labels.or_else(in_cluster),
        corefile: args.corefile.map_or(Corefile::Cluster, Corefile::File),
        listen: args.listen,
        cluster_domain: args.cluster_domain,
        upstreams: args.forward,
        metrics: args.metrics.unwrap_or(if alone { At::Corefile } else { local(9153) }),
        health: args.health.unwrap_or(if alone { At::Corefile } else { At::Nowhere }),
        ready: args.ready.unwrap_or(if alone { At::Corefile } else { local(8181) }),
        has_cluster: updates.is_some(),
        snapshot: args.snapshot,
        heartbeat,
        inherited: Inherited::new(listen::Inherited::take()?.into_sockets()),
        ..Config::default()
    };
    if let Some(workers) = args.workers {
        config.workers = workers.into();
    }
    daemon::run(async |shutdown| {
        let updates = updates.unwrap_or_else(|| futures::stream::pending().boxed());
        let mut server = DnsServer::new(config, updates).await?;
        tracing::info!(addresses = ?server.addresses(), "answering");
        let Some(identity) = identity.filter(|_| !alone) else { return Ok(server.run(shutdown).await?) };
        let notices = server.notices();
        tokio::select! {
            result = server.run(shutdown) => Ok(result?),
            () = events::post(identity, node, notices) => Ok(()),
        }
    })
}

/// Who we are in the cluster, if there is one.
fn identity(args: &ServeArgs) -> anyhow::Result<Option<Identity>> {
    let kubeconfig = match (&args.kubeconfig, &args.corefile) {
        _ if args.objects.is_some() => return Ok(None),
        (Some(file), _) => file.clone(),
        (None, None) => PathBuf::from(KUBECONFIG),
        (None, Some(_)) => return Ok(None),
    };
    Ok(Some(Identity::read(&kubeconfig)?))
}

/// Where the names of the cluster come from, if from anywhere.
fn updates(
    args: &ServeArgs,
    identity: Option<&Identity>,
) -> anyhow::Result<Option<BoxStream<'static, Update>>> {
    if let Some(file) = &args.objects {
        return Ok(Some(objects::updates(file)?));
    }
    let Some(identity) = identity else { return Ok(None) };
    let feed = identity.feed(args.feed.as_deref())?;
    let name = args.name.clone().map_or_else(host_name, Ok)?;
    Ok(Some(feed_updates(feed, &name).boxed()))
}

/// An address whose port need not be given.
fn dns_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok((address, PORT).into()),
        Err(_) => text.parse().map_err(|_| "not an IP address with an optional port".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<At, String> {
    match text {
        "none" => Ok(At::Nowhere),
        _ => text.parse().map(At::Address).map_err(|_| "not ADDRESS:PORT".to_owned()),
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
