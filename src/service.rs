//! `fairlead service`: services as the node's kernel has them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use clap::{Args, Subcommand};
use fairlead_agent::inspect::{Backend, Dump, Frontend, Kind, ServiceRef, blocks_of};
use serde::Serialize;

use crate::{
    admin,
    bpf::{choice, frontend, name},
    inspect::{self, NodeArgs},
    output::{self, Format, columns},
};

const EXAMPLES: &str = "\
Examples:
  fairlead service list
  fairlead service get web -n demo
  fairlead service get kube-system/kube-dns --node node-2 -o json";

/// Arguments of `fairlead service`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A line for each port of a service
    List {
        #[command(flatten)]
        node: NodeArgs,
        /// Only services of this namespace
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Frontends and backends of a service
    Get {
        /// Name, or NAMESPACE/NAME
        #[arg(value_name = "NAME")]
        service: String,
        #[command(flatten)]
        node: NodeArgs,
        /// Its namespace
        #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
        namespace: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// A service with its backends.
#[derive(Debug, Serialize)]
struct Shown {
    frontends: Vec<Frontend>,
    backends: Vec<Backend>,
}

/// Reads and prints.
pub(crate) fn run(args: &ServiceArgs) -> anyhow::Result<()> {
    let runtime = admin::runtime()?;
    match &args.command {
        Command::List { node, namespace, output } => {
            let mut frontends = runtime.block_on(frontends(node))?;
            frontends.retain(|one| {
                namespace.is_none() || of(one, |service| Some(&service.namespace) == namespace.as_ref())
            });
            output::print(*output, &frontends, |frontends| list(frontends))
        }
        Command::Get { service, node, namespace, output } => {
            let (namespace, service) = service.split_once('/').unwrap_or((namespace, service));
            let shown = runtime.block_on(get(node, namespace, service))?;
            output::print(*output, &shown, detail)
        }
    }
}

async fn frontends(node: &NodeArgs) -> anyhow::Result<Vec<Frontend>> {
    match inspect::read(node, Kind::Services).await? {
        Dump::Services(frontends) => Ok(frontends),
        _ => bail!("the agent answered with something else; is it of another version?"),
    }
}

async fn get(node: &NodeArgs, namespace: &str, service: &str) -> anyhow::Result<Shown> {
    let all = frontends(node).await?;
    let ids = blocks_of(&all, |one| one.namespace == namespace && one.name == service);
    if ids.is_empty() {
        let named = all.iter().any(|one| one.service.is_some());
        let why = if named || all.is_empty() {
            "has no frontend in this node's kernel; `fairlead service list` shows those that have"
        } else {
            "cannot be found by name, because no agent runs here; `fairlead bpf services` shows what is in the kernel"
        };
        bail!("the service {namespace}/{service} {why}");
    }
    let frontends: Vec<_> = all.into_iter().filter(|one| ids.contains(&one.id)).collect();
    let backends = match inspect::read(node, Kind::Backends).await? {
        Dump::Backends(backends) => {
            backends.into_iter().filter(|one| one.id.is_some_and(|id| ids.contains(&id)))
        }
        _ => bail!("the agent answered with something else; is it of another version?"),
    };
    Ok(Shown { frontends, backends: backends.collect() })
}

fn of(frontend: &Frontend, wanted: impl Fn(&ServiceRef) -> bool) -> bool {
    frontend.service.as_ref().is_some_and(wanted)
}

/// A line for each port: all its frontends, and how many backends there are.
fn list(frontends: &[Frontend]) -> String {
    let mut ports: BTreeMap<(Option<&ServiceRef>, &str), Vec<&Frontend>> = BTreeMap::new();
    for one in frontends {
        ports.entry((one.service.as_ref(), one.protocol.as_str())).or_default().push(one);
    }
    let row = |((service, _), frontends): (_, Vec<&Frontend>)| {
        let distinct = |of: fn(&Frontend) -> &Vec<u32>| {
            frontends.iter().flat_map(|one| of(one)).collect::<BTreeSet<_>>().len().to_string()
        };
        vec![
            name(service),
            frontends.iter().map(|one| frontend(one)).collect::<Vec<_>>().join(" "),
            distinct(|one| &one.cluster),
            distinct(|one| &one.local),
            frontends.first().map(|one| choice(one)).unwrap_or_default(),
        ]
    };
    columns(&["SERVICE", "FRONTENDS", "BACKENDS", "LOCAL", "CHOICE"], ports.into_iter().map(row))
}

fn detail(shown: &Shown) -> String {
    let frontends = shown.frontends.iter().map(|one| {
        vec![
            name(one.service.as_ref()),
            frontend(one),
            one.cluster.len().to_string(),
            one.local.len().to_string(),
            choice(one),
            one.flags.join(","),
        ]
    });
    let backends = shown.backends.iter().map(|one| {
        let cell =
            |flag: &str, yes: &str| if one.flags.iter().any(|f| f == flag) { yes } else { "-" }.to_owned();
        vec![
            format!("{}/{}", std::net::SocketAddr::new(one.address, one.port), one.protocol),
            one.index.to_string(),
            cell("cluster", "yes"),
            cell("local", "yes"),
            cell("serving", "yes"),
            cell("here", "here"),
        ]
    });
    format!(
        "{}\n{}",
        columns(&["SERVICE", "FRONTEND", "BACKENDS", "LOCAL", "CHOICE", "FLAGS"], frontends),
        columns(&["BACKEND", "INDEX", "POLICY CLUSTER", "POLICY LOCAL", "SERVING", "NODE"], backends)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(address: &str, cluster: &[u32], local: &[u32]) -> Frontend {
        Frontend {
            service: Some(ServiceRef { namespace: "demo".into(), name: "web".into(), port: "http".into() }),
            address: address.parse().unwrap(),
            port: 80,
            protocol: "TCP".into(),
            scope: "address".into(),
            flags: Vec::new(),
            id: 1,
            cluster: cluster.to_vec(),
            local: local.to_vec(),
            maglev_table: 0,
            affinity_secs: 0,
            generation: 1,
        }
    }

    #[test]
    fn a_service_is_one_line_with_all_its_frontends() {
        let text = list(&[row("10.96.0.1", &[1, 2], &[1]), row("192.0.2.1", &[1, 2], &[1])]);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("SERVICE"));
        let line = lines.next().unwrap();
        assert_eq!(line, "demo/web:http   10.96.0.1:80/TCP 192.0.2.1:80/TCP   2          1       random");
        assert_eq!(lines.next(), None);
    }
}
