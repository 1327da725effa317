//! How a node carries services, as flags of `fairlead node` and `fairlead proxy`.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use anyhow::bail;
use clap::Args;
use fairlead_agent::{
    Capacities, Forwarding, NodePortAddresses, ProxyMode, RuleConfig, ServiceConfig, ServiceOptions,
    Timeouts, Xdp,
};
use fairlead_model::Prefix;
use ipnet::IpNet;

/// Flags about services.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Services")]
pub(crate) struct ServiceArgs {
    /// How connections from outside reach pods on other nodes: encapsulated (the pod sees the client, replies come back
    /// by this node), direct (the pod's node answers the client), masquerade (the pod sees this node) [default: encapsulated;
    /// with `fairlead proxy` the host's stack forwards, and pods elsewhere see this node]
    #[arg(long, value_name = "HOW")]
    pub(crate) forwarding: Option<Forwarding>,
    /// UDP port of the VXLAN between nodes; not used with --forwarding=masquerade
    #[arg(long, value_name = "PORT", default_value_t = 4789)]
    overlay_port: u16,
    /// Send packets on to other nodes before the kernel has made anything of them: auto (in the uplink's driver where that
    /// serves, else not), native (in the driver), generic (without one; saves nothing), off
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub(crate) xdp: Xdp,
    /// Translate connections at the socket for the node's own processes only; a service mesh or a virtual machine in a pod
    /// then sees the service's address
    #[arg(long)]
    pub(crate) socket_lb_host_only: bool,
    /// Where node ports are; no socket is given such a port by chance
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = ports)]
    service_node_port_range: RangeInclusive<u16>,
    /// Addresses that serve node ports, as networks, or `primary` for the node's addresses [default: all, 127.0.0.1 and
    /// ::1 among them]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = node_port_network)]
    nodeport_addresses: Vec<NodePortNetwork>,
    /// Ports to masquerade with; they should not be in net.ipv4.ip_local_port_range. Where the host's stack forwards (the default
    /// of `fairlead proxy`) it takes those beside the node ports
    #[arg(long, value_name = "FIRST-LAST", default_value = "61000-65535", value_parser = ports)]
    masquerade_ports: RangeInclusive<u16>,
    /// How many entries a map holds: services, slots, backends, affinity, conntrack or routes; may be repeated
    #[arg(long, value_name = "MAP=ENTRIES", value_parser = map_size)]
    map_size: Vec<(usize, u32)>,
    /// How long an idle TCP connection is remembered
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    conntrack_tcp_timeout_established: Duration,
    /// How long an idle TCP connection is remembered that one side has closed
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    conntrack_tcp_timeout_close_wait: Duration,
    /// How long a TCP connection is remembered that both sides have closed, or one has reset
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    conntrack_tcp_timeout_closing: Duration,
    /// How long a TCP connection is remembered that nobody has answered
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = time)]
    conntrack_tcp_timeout_half_open: Duration,
    /// How long datagrams are remembered that nobody has answered
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    conntrack_udp_timeout: Duration,
    /// How long datagrams are remembered that somebody has answered
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = time)]
    conntrack_udp_timeout_stream: Duration,
    /// How often programs, maps, rules and routes are compared with what they are to be, and put right
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    repair_period: Duration,
    /// Do not serve `spec.externalIPs` of services: whoever may write a Service can take any address with them
    #[arg(long)]
    ignore_external_ips: bool,
    /// Deny clients outside the cluster the cluster addresses of services, which else serve whoever has a route to
    /// them; what they send is dropped (ebpf mode)
    #[arg(long)]
    deny_outside_cluster_ips: bool,
    /// Masquerade everything that is sent to a cluster address (iptables, nftables and ipvs modes)
    #[arg(long)]
    masquerade_all: bool,
    /// Networks of all pods, who are not masqueraded (the same modes) [default: the pod networks of this node]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    cluster_cidr: Vec<Prefix>,
    /// Networks of cluster addresses, one of each family: what is sent to one that nobody has is refused (ebpf mode) or dropped
    /// (nftables mode) [default: the cluster's ServiceCIDR objects]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    service_cidr: Vec<Prefix>,
    /// Bit of the packet mark that asks for masquerading (iptables, nftables and ipvs modes, and `fairlead proxy`)
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..=31))]
    masquerade_bit: u8,
    /// Serve node ports on 127.0.0.1 in iptables mode; the other two never do
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    iptables_localhost_nodeports: bool,
}

/// A map that has a size: its name, and where its capacity is.
type SizedMap = (&'static str, fn(&mut Capacities) -> &mut u32);

/// Maps that have a size.
const MAPS: [SizedMap; 6] = [
    ("services", |capacities| &mut capacities.services),
    ("slots", |capacities| &mut capacities.slots),
    ("backends", |capacities| &mut capacities.backends),
    ("affinity", |capacities| &mut capacities.affinity),
    ("conntrack", |capacities| &mut capacities.conntrack),
    ("routes", |capacities| &mut capacities.routes),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NodePortNetwork {
    Primary,
    Network(Prefix),
}

impl ServiceArgs {
    /// Refuses flags that have no effect in the mode.
    pub(crate) fn check(&self, mode: ProxyMode) -> anyhow::Result<()> {
        if self.masquerade_all && mode == ProxyMode::Ebpf {
            bail!(
                "--masquerade-all is for the modes iptables, nftables and ipvs: in ebpf mode no connection of a pod or a node \
                 needs it, and clients outside are masqueraded with --forwarding=masquerade; leave it out"
            );
        }
        check_denial(self.deny_outside_cluster_ips, mode)
    }

    /// Whether it is said where cluster addresses are.
    pub(crate) fn has_service_networks(&self) -> bool {
        !self.service_cidr.is_empty()
    }

    /// As the agent wants it, for a node with these addresses.
    pub(crate) fn config(&self, addresses: &[IpAddr]) -> ServiceConfig {
        let mut capacities = Capacities::default();
        for (map, entries) in &self.map_size {
            *MAPS[*map].1(&mut capacities) = *entries;
        }
        let networks = self.nodeport_addresses.iter().map(|network| match network {
            NodePortNetwork::Primary => addresses.iter().copied().map(single).collect(),
            NodePortNetwork::Network(prefix) => vec![*prefix],
        });
        let networks: Vec<Prefix> = networks.flatten().collect();
        ServiceConfig {
            options: ServiceOptions {
                forwarding: self.forwarding.unwrap_or_default(),
                overlay_port: self.overlay_port,
                xdp: self.xdp,
                sockets_of_host_only: self.socket_lb_host_only,
                deny_outside: self.deny_outside_cluster_ips,
                node_ports: self.service_node_port_range.clone(),
                masquerade_ports: self.masquerade_ports.clone(),
                masquerade_mark: 1 << self.masquerade_bit,
                capacities,
                ..ServiceOptions::default()
            },
            addresses: addresses.to_vec(),
            node_port_addresses: match self.nodeport_addresses.as_slice() {
                [] => NodePortAddresses::All,
                [NodePortNetwork::Primary] => NodePortAddresses::Primary,
                _ => NodePortAddresses::Within(networks),
            },
            timeouts: Timeouts {
                tcp_established: self.conntrack_tcp_timeout_established,
                tcp_close_wait: self.conntrack_tcp_timeout_close_wait,
                tcp_closing: self.conntrack_tcp_timeout_closing,
                tcp_half_open: self.conntrack_tcp_timeout_half_open,
                udp_answered: self.conntrack_udp_timeout_stream,
                udp: self.conntrack_udp_timeout,
                ..Timeouts::default()
            },
            service_networks: self.service_cidr.clone(),
            ignore_external_addresses: self.ignore_external_ips,
            repair_period: self.repair_period,
            rules: RuleConfig {
                masquerade_all: self.masquerade_all,
                masquerade_bit: self.masquerade_bit,
                pod_networks: self.cluster_cidr.clone(),
                localhost_node_ports: self.iptables_localhost_nodeports,
            },
        }
    }
}

/// Refuses `--deny-outside-cluster-ips` where it would not be kept.
pub(crate) fn check_denial(deny_outside: bool, mode: ProxyMode) -> anyhow::Result<()> {
    if deny_outside && mode != ProxyMode::Ebpf {
        bail!(
            "--deny-outside-cluster-ips is for ebpf mode: the rules of {mode} mode serve cluster addresses to everybody; \
             leave it out, or filter on the way to the nodes"
        );
    }
    Ok(())
}

fn single(address: IpAddr) -> Prefix {
    Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = text.split_once('-').and_then(|(first, last)| Some(number(first)?..=number(last)?));
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| "write it as FIRST-LAST, e.g. 30000-32767".to_owned())
}

fn node_port_network(text: &str) -> Result<NodePortNetwork, String> {
    if text == "primary" {
        return Ok(NodePortNetwork::Primary);
    }
    let network = network(text).map_err(|error| format!("{error}, or primary"))?;
    Ok(NodePortNetwork::Network(network))
}

fn network(text: &str) -> Result<Prefix, String> {
    let network = text.parse::<IpNet>().map_err(|_| "write a network such as 192.0.2.0/24")?.trunc();
    Ok(Prefix { address: network.network(), length: network.prefix_len() })
}

fn map_size(text: &str) -> Result<(usize, u32), String> {
    let (name, entries) = text.split_once('=').ok_or("write it as MAP=ENTRIES")?;
    let map = MAPS.iter().position(|(known, _)| *known == name).ok_or_else(|| {
        let known: Vec<_> = MAPS.iter().map(|(known, _)| *known).collect();
        format!("{name:?} is not one of {}", known.join(", "))
    })?;
    let entries = entries.parse().ok().filter(|entries| *entries > 0);
    Ok((map, entries.ok_or("the number of entries is not a positive number")?))
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("h", 3600), ("m", 60), ("s", 1)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds).filter(|seconds| *seconds > 0)
    });
    parsed.map(Duration::from_secs).ok_or_else(|| "write a time such as 30s, 5m or 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        services: ServiceArgs,
    }

    fn parse(arguments: &[&str]) -> Result<ServiceConfig, String> {
        let arguments = ["test"].iter().chain(arguments);
        let parsed = Only::try_parse_from(arguments).map_err(|error| error.to_string())?;
        Ok(parsed.services.config(&["192.0.2.17".parse().expect("an address")]))
    }

    #[test]
    fn flags_that_are_not_given_are_the_agent_s_defaults() {
        let addresses = vec!["192.0.2.17".parse().expect("an address")];
        assert_eq!(parse(&[]), Ok(ServiceConfig { addresses, ..ServiceConfig::default() }));
    }

    #[test]
    fn a_flag_without_effect_is_refused() {
        let check = |arguments: &[&str], mode| {
            let arguments = ["test"].iter().chain(arguments);
            Only::try_parse_from(arguments).expect("it is a flag").services.check(mode).is_ok()
        };
        assert!(!check(&["--masquerade-all"], ProxyMode::Ebpf));
        for mode in [ProxyMode::Iptables, ProxyMode::Nftables, ProxyMode::Ipvs] {
            assert!(!check(&["--deny-outside-cluster-ips"], mode), "{mode}");
        }
        assert!(check(&["--deny-outside-cluster-ips"], ProxyMode::Ebpf));
        assert!(check(&["--masquerade-all"], ProxyMode::Iptables) && check(&[], ProxyMode::Ebpf));
    }

    #[test]
    fn every_flag_arrives() {
        let config = parse(&[
            "--forwarding=direct",
            "--socket-lb-host-only",
            "--deny-outside-cluster-ips",
            "--service-node-port-range=20000-20100",
            "--nodeport-addresses=192.0.2.9/24,primary",
            "--map-size=conntrack=1000000",
            "--conntrack-tcp-timeout-established=5m",
            "--repair-period=5s",
        ])
        .expect("valid");
        let options = config.options;
        assert_eq!((options.forwarding, options.sockets_of_host_only), (Forwarding::Direct, true));
        assert!(options.deny_outside);
        assert_eq!((options.node_ports, options.capacities.conntrack), (20_000..=20_100, 1_000_000));
        let network =
            |address: &str, length| Prefix { address: address.parse().expect("an address"), length };
        let networks = vec![network("192.0.2.0", 24), network("192.0.2.17", 32)];
        assert_eq!(config.node_port_addresses, NodePortAddresses::Within(networks));
        assert_eq!(config.timeouts.tcp_established, Duration::from_secs(300));
        assert_eq!(config.repair_period, Duration::from_secs(5));
    }

    #[test]
    fn what_means_nothing_is_refused_with_a_hint() {
        for (argument, hint) in [
            ("--forwarding=fast", "encapsulated or direct or masquerade"),
            ("--service-node-port-range=32767-30000", "FIRST-LAST"),
            ("--nodeport-addresses=all", "or primary"),
            ("--map-size=pods=3", "not one of services"),
            ("--conntrack-udp-timeout=60", "30s, 5m or 24h"),
        ] {
            let refused = parse(&[argument]).expect_err(argument);
            assert!(refused.contains(hint), "{argument}: {refused}");
        }
    }
}
