//! `fairlead server`: the control plane in one process. Scheduler, controllers and feed are clients of the API like
//! any other; they reach it without a socket.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, builder::RangedI64ValueParser};
use fairlead_apiserver::{ApiServer, Config, PortRange};
use fairlead_controllers::{Controllers, ControllersConfig};
use fairlead_feed::{Feed, FeedConfig, FeedTls};
use fairlead_scheduler::Scheduler;
use ipnet::IpNet;
use kube::Client;

mod limits;
mod memory;
mod turns;

use limits::LimitArgs;
use turns::Turns;

use crate::{
    cli::absolute_path,
    daemon::{self, Parts},
    identity::FEED_PORT,
    listen::{self, Inherited},
    paths,
    store::select::{DurabilityArgs, EtcdArgs, Kind},
    up::credentials,
};

/// Port of the API.
const API_PORT: u16 = 6443;
/// Upstream's grace for a node that shows no sign of life.
pub(crate) const NODE_MONITOR_GRACE_SECS: u32 = 40;

const EXAMPLES: &str = "\
Examples:
  fairlead server --advertise-address 192.0.2.10
  fairlead server --listen 127.0.0.1:6443 --state-dir ./state --kubeconfig ./kubeconfig
  fairlead server --store etcd --etcd-endpoints https://192.0.2.1:2379,https://192.0.2.2:2379 \\
      --etcd-cafile etcd-ca.crt --etcd-certfile client.crt --etcd-keyfile client.key

Sockets passed by systemd (Sockets= with FileDescriptorName=api or feed) are used besides those of --listen and
--feed-listen; then no default address is bound.";

/// Arguments of `fairlead server`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    /// Directory of the store and the certificate authority
    #[arg(long, default_value = "/var/lib/fairlead", value_name = "DIR", value_parser = absolute_path)]
    state_dir: PathBuf,
    /// Address of the API; may be repeated [default: 0.0.0.0:6443, unless a socket is inherited]
    #[arg(long, visible_alias = "bind", value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Address of the feed; may be repeated [default: 0.0.0.0:6444, unless a socket is inherited]
    #[arg(long, value_name = "ADDRESS:PORT")]
    feed_listen: Vec<SocketAddr>,
    /// Address where others reach this server: endpoint of the `kubernetes` Service, name in the certificate; one per
    /// family
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    advertise_address: Vec<IpAddr>,
    /// Further name or address in the server's certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    server_name: Vec<String>,
    /// Network of service addresses, one per family
    #[arg(long, value_name = "PREFIX", default_values = paths::SERVICE_NETWORKS)]
    service_cidr: Vec<IpNet>,
    /// Ports of the nodes that Services get; the first of them only for Services that name one
    #[arg(long, value_name = "FIRST-LAST", default_value_t)]
    service_node_port_range: PortRange,
    /// Network of pod addresses, one per family; each node gets a /24 or a /64 of it
    #[arg(long, value_name = "PREFIX", default_values = ["10.244.0.0/16", "fd00:244::/56"])]
    cluster_cidr: Vec<IpNet>,
    /// Address of the cluster DNS Service, one per family
    #[arg(long, value_name = "ADDRESS", default_values = ["10.96.0.10", "fd00:96::a"])]
    cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Seconds without a sign of life after which a node is not Ready; a node gives one every 10 s
    #[arg(long, value_name = "SECS", default_value_t = NODE_MONITOR_GRACE_SECS, value_parser = node_monitor_grace())]
    node_monitor_grace: u32,
    /// Where to write an administrator's kubeconfig [default: admin.kubeconfig in the state directory]
    #[arg(long, visible_alias = "kubeconfig-out", value_name = "FILE", value_parser = absolute_path)]
    kubeconfig: Option<PathBuf>,
    /// The server's URL in that kubeconfig [default: the first advertised address]
    #[arg(long, value_name = "URL")]
    kubeconfig_server: Option<String>,
    /// Where objects are stored: in a file below the state directory, or in etcd
    #[arg(long, value_name = "STORE", value_enum, default_value_t)]
    store: Kind,
    /// What an acknowledged write has survived.
    #[command(flatten)]
    durability: DurabilityArgs,
    /// Where etcd is.
    #[command(flatten)]
    etcd: EtcdArgs,
    /// What is taken on at a time.
    #[command(flatten)]
    limits: LimitArgs,
}

/// A node's lease is renewed every 10 s: a shorter grace would call every node silent.
pub(crate) fn node_monitor_grace() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(12..=3600)
}

/// Serves until SIGINT or SIGTERM.
pub(crate) fn run(args: &ServerArgs) -> anyhow::Result<()> {
    let sockets = Sockets::open(args)?;
    daemon::run(async |shutdown| {
        let store = tokio::select! {
            opened = args.store.open(&args.state_dir, &args.durability, &args.etcd) => opened?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let tls = feed_tls(args)?;
        let api = ApiServer::with_limits(api_config(args, sockets.api)?, store, args.limits.limits()).await?;
        let client = Client::new(api.in_process(), "default");
        let feed = Feed::new(FeedConfig { listeners: sockets.feed, tls }, client.clone()).await?;
        let controllers = Controllers::new(client.clone(), controllers_config(args))?;
        let turns = Turns::new(args.store, client.clone())?;

        let mut parts = Parts::new(shutdown);
        parts.spawn("API server", |stop| async { Ok(api.run(stop).await?) });
        parts.spawn("feed", |stop| async { Ok(feed.run(stop).await?) });
        let control = move |stop| controllers.clone().run(stop);
        parts.spawn("controllers", |stop| turns.clone().take(turns::CONTROLLERS, stop, control));
        let schedule = move |stop| Scheduler::new(client.clone()).run(stop);
        parts.spawn("scheduler", |stop| turns.take(turns::SCHEDULER, stop, schedule));
        parts.spawn("memory", memory::let_go_of_code_after_work);
        let store = args.store.said(&args.durability);
        tracing::info!(state_dir = %args.state_dir.display(), store, "serving");
        parts.join().await
    })
}

/// The two sets of listening sockets, std ones because their users adopt them.
struct Sockets {
    api: Vec<TcpListener>,
    feed: Vec<TcpListener>,
}

impl Sockets {
    fn open(args: &ServerArgs) -> anyhow::Result<Self> {
        let mut inherited = Inherited::take()?;
        let open = |mut sockets: Vec<TcpListener>, given: &[SocketAddr], port: u16, flag: &str| {
            let any = [SocketAddr::from(([0, 0, 0, 0], port))];
            let addresses = if given.is_empty() && sockets.is_empty() { &any[..] } else { given };
            sockets.extend(listen::bind(addresses, flag)?);
            anyhow::Ok(sockets)
        };
        Ok(Self {
            api: open(inherited.named("api"), &args.listen, API_PORT, "--listen")?,
            feed: open(inherited.named("feed"), &args.feed_listen, FEED_PORT, "--feed-listen")?,
        })
    }
}

fn api_config(args: &ServerArgs, listeners: Vec<TcpListener>) -> anyhow::Result<Config> {
    let port = listeners.first().context("no socket for the API")?.local_addr()?.port();
    let address = args.advertise_address.first().context("--advertise-address is needed")?;
    let url = || format!("https://{}", SocketAddr::new(*address, port));
    Ok(Config {
        state_dir: args.state_dir.clone(),
        listeners,
        advertise: args.advertise_address.clone(),
        shares_store: args.store == Kind::Etcd,
        server_names: args.server_name.clone(),
        service_networks: args.service_cidr.clone(),
        service_node_ports: args.service_node_port_range,
        cluster_domain: args.cluster_domain.clone(),
        cluster_dns: args.cluster_dns.clone(),
        admin_kubeconfig: Some(
            args.kubeconfig.clone().unwrap_or_else(|| args.state_dir.join("admin.kubeconfig")),
        ),
        admin_server_url: args.kubeconfig_server.clone().unwrap_or_else(url),
    })
}

fn controllers_config(args: &ServerArgs) -> ControllersConfig {
    ControllersConfig {
        cluster_cidrs: args.cluster_cidr.clone(),
        node_monitor_grace: Duration::from_secs(args.node_monitor_grace.into()),
        ..ControllersConfig::default()
    }
}

/// The feed serves under the same addresses as the API, with a certificate of its own.
fn feed_tls(args: &ServerArgs) -> anyhow::Result<FeedTls> {
    let authority = credentials::open(&paths::pki_of(&args.state_dir))?;
    let mut names: Vec<_> = args.advertise_address.iter().map(ToString::to_string).collect();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
    names.extend(args.server_name.iter().cloned());
    names.sort();
    names.dedup();
    let issued = authority.stored("feed", "fairlead-feed", &[], &names)?;
    Ok(FeedTls {
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
        client_ca_pem: authority.ca_pem().to_owned(),
    })
}
