//! The daemons of a development cluster, as command lines.

use std::{ffi::OsString, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use super::{
    UpArgs, containerd,
    supervise::ChildSpec,
    topology::{FABRIC_V4, FABRIC_V6, UPLINK, node_addresses},
};
use crate::paths::{ClusterPaths, DNS_HEARTBEAT, FABRIC, SERVICE_NETWORKS, node_name};

/// Port of the API server in the fabric.
pub(crate) const API_PORT: u16 = 6443;
/// Port of the DNS servers on their nodes.
pub(crate) const DNS_PORT: u16 = 53;
/// Port of the feed in the fabric.
pub(crate) const FEED_PORT: u16 = 6444;
/// How long a daemon may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The API server's address for nodes.
pub(crate) fn api_url() -> String {
    format!("https://{FABRIC_V4}:{API_PORT}")
}

/// The API server's address for this machine.
pub(crate) fn host_url(api_port: u16) -> String {
    format!("https://127.0.0.1:{api_port}")
}

/// The control plane, on sockets of the host and the fabric.
pub(crate) fn server(
    paths: &ClusterPaths,
    program: OsString,
    sockets: Vec<(String, OwnedFd)>,
    args: &UpArgs,
) -> ChildSpec {
    let mut options: Vec<(&str, OsString)> = vec![
        ("--state-dir", paths.state.clone().into()),
        ("--advertise-address", FABRIC_V4.to_string().into()),
        ("--advertise-address", FABRIC_V6.to_string().into()),
        ("--kubeconfig", paths.kubeconfig().into()),
        ("--kubeconfig-server", host_url(args.api_port).into()),
        ("--node-monitor-grace", args.node_monitor_grace.to_string().into()),
    ];
    options.extend(args.durability.flags());
    ChildSpec {
        role: "server".to_owned(),
        netns: Some(paths.netns(FABRIC)),
        program,
        arguments: arguments("server", &options),
        sockets: Arc::new(sockets),
        log: paths.log("server"),
        grace: GRACE,
    }
}

/// A node's dataplane and kubelet.
pub(crate) fn node(paths: &ClusterPaths, program: OsString, args: &UpArgs, index: u8) -> ChildSpec {
    let name = node_name(index);
    let socket = args.containerd.clone().unwrap_or_else(|| containerd::socket(paths));
    let mut options: Vec<(&str, OsString)> = vec![
        ("--name", name.clone().into()),
        ("--kubeconfig", node_kubeconfig(paths, &name).into()),
        ("--feed", format!("https://{FABRIC_V4}:{FEED_PORT}").into()),
        ("--state-dir", paths.node_state(&name).into()),
        ("--run-dir", paths.node_run(&name).into()),
        ("--bpffs", paths.bpffs(&name).into()),
        ("--cgroup", paths.cgroup().join(&name).into()),
        ("--containerd", socket.into()),
        ("--containerd-namespace", containerd::namespace(paths, &name).into()),
        ("--uplink", UPLINK.into()),
        ("--service-cidr", SERVICE_NETWORKS.join(",").into()),
        ("--proxy-mode", args.proxy_mode.as_str().into()),
    ];
    options.extend(node_addresses(index).map(|address| ("--node-ip", address.to_string().into())));
    options.extend(args.images.iter().map(|images| ("--images", images.clone().into())));
    let mut arguments = arguments("node", &options);
    arguments.extend(args.deny_outside_cluster_ips.then(|| "--deny-outside-cluster-ips".into()));
    ChildSpec {
        role: name.clone(),
        netns: Some(paths.netns(&name)),
        program,
        arguments,
        log: paths.log(&name),
        grace: GRACE,
        ..ChildSpec::default()
    }
}

/// A node's DNS server, on sockets of the node.
pub(crate) fn dns(
    paths: &ClusterPaths,
    program: OsString,
    sockets: Vec<(String, OwnedFd)>,
    index: u8,
) -> ChildSpec {
    let name = node_name(index);
    let role = format!("dns-{name}");
    let mut options: Vec<(&str, OsString)> = vec![
        ("--name", name.clone().into()),
        ("--kubeconfig", node_kubeconfig(paths, &name).into()),
        ("--feed", format!("https://{FABRIC_V4}:{FEED_PORT}").into()),
    ];
    options.push(("--snapshot", paths.node_state(&name).join("dns-names").into()));
    options.push(("--heartbeat", paths.node_run(&name).join(DNS_HEARTBEAT).into()));
    options.extend(node_addresses(index).map(|address| ("--listen", address.to_string().into())));
    ChildSpec {
        sockets: Arc::new(sockets),
        netns: Some(paths.netns(&name)),
        program,
        arguments: arguments("dns", &options),
        log: paths.log(&role),
        role,
        grace: GRACE,
    }
}

/// A node's credentials, for its daemons and for its kubelet's server.
pub(crate) fn node_kubeconfig(paths: &ClusterPaths, node: &str) -> PathBuf {
    paths.node_run(node).join("kubeconfig")
}

fn arguments(command: &str, options: &[(&str, OsString)]) -> Vec<OsString> {
    let options = options.iter().flat_map(|(flag, value)| [OsString::from(flag), value.clone()]);
    std::iter::once(OsString::from(command)).chain(options).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{dns, node, server};
    use crate::{
        cli::{Cli, Command},
        paths::ClusterPaths,
        up::UpArgs,
    };

    fn up_args() -> UpArgs {
        let line = "fairlead up --images /images --deny-outside-cluster-ips --store-durability deferred --store-sync-interval 50";
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Up(args) => args,
            other => panic!("not up: {other:?}"),
        }
    }

    #[test]
    fn every_child_understands_its_command_line() {
        let paths = ClusterPaths::new("blue", None, None);
        for spec in [
            server(&paths, "fairlead".into(), Vec::new(), &up_args()),
            node(&paths, "fairlead".into(), &up_args(), 1),
            dns(&paths, "fairlead".into(), Vec::new(), 2),
        ] {
            let line = std::iter::once(&spec.program).chain(&spec.arguments);
            assert!(Cli::try_parse_from(line).is_ok(), "{:?}", spec.arguments);
            let defers = spec.arguments.windows(2).any(|pair| pair == ["--store-durability", "deferred"]);
            assert_eq!(defers, spec.role == "server");
            let denies = spec.arguments.iter().any(|argument| argument == "--deny-outside-cluster-ips");
            assert_eq!(denies, spec.role == "node-1");
            assert!(spec.netns.is_some_and(|path| path.starts_with("/run/netns")));
        }
    }
}
