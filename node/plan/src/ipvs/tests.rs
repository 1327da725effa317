use fairlead_model::{Change, Prefix, Revision, Service, TrafficPolicy, Update};

use super::*;
use crate::Changes;
use crate::classic::masked;
use crate::classic::trace::{
    End, Packet, every_end,
    iptables::{State, Tables, Verdict},
    table::{
        self, By, CONFIGURATIONS, Client, FLOWS, NODE, NODE_ADDRESS, OUTSIDE, POD, Row, To, address, config,
        endpoint, service, slice, view,
    },
};

/// A kernel with IPVS, and the planner that writes it.
struct Host {
    planner: Planner,
    tables: Tables,
    servers: BTreeMap<Server, (AffinitySecs, BTreeMap<Target, u32>)>,
    bound: BTreeSet<IpAddr>,
    now_ms: u64,
}

impl Host {
    fn new(config: Config, family: Family) -> Self {
        let planner = Planner::adopt(config, family, Observed::default(), BTreeSet::new());
        Self { planner, tables: Tables::new(), servers: BTreeMap::new(), bound: BTreeSet::new(), now_ms: 0 }
    }

    fn observe(&self) -> Observed {
        Observed {
            servers: self.servers.clone(),
            bound: self.bound.clone(),
            sets: self.tables.sets.clone(),
            saved: Saved::parse(&self.tables.save()),
        }
    }

    fn sync(&mut self, view: &View, scope: Scope<'_>) -> Plan {
        let plan = self.planner.plan(view, scope, self.now_ms);
        for line in plan.sets.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let set = self.tables.sets.entry(words[1].to_owned()).or_default();
            match words[0] {
                "add" => _ = set.insert(kept(words[2])),
                "del" => _ = set.remove(&kept(words[2])),
                _ => {}
            }
        }
        self.apply(&plan.additions);
        if let Some(restore) = &plan.restore {
            self.tables.restore(&restore.text);
        }
        self.apply(&plan.removals);
        plan
    }

    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match *op {
                Op::PutServer(server, affinity) => self.servers.entry(server).or_default().0 = affinity,
                Op::PutEndpoint(server, target, weight) => {
                    let endpoints = &mut self.servers.get_mut(&server).expect("the server").1;
                    endpoints.insert(target, weight);
                }
                Op::DeleteEndpoint(server, target) => {
                    let endpoints = &mut self.servers.get_mut(&server).expect("the server").1;
                    endpoints.remove(&target).expect("the endpoint");
                }
                Op::Bind(address) => drop(self.bound.insert(address)),
                Op::Unbind(address) => assert!(self.bound.remove(&address)),
                Op::DeleteServer(server) => drop(self.servers.remove(&server).expect("the server")),
            }
        }
    }

    fn trace(&self, packet: Packet) -> BTreeSet<End> {
        let mut node = table::node();
        node.local.extend(&self.bound);
        every_end(|choices| {
            let mut state = State::new(packet);
            // A bound address is local, but nobody uses it as a source unless it asks for its own service.
            let outgoing = node.is_local(packet.src);
            let first = if outgoing { "OUTPUT" } else { "PREROUTING" };
            self.tables.walk("nat", first, &node, &mut state, choices);
            if !node.is_local(packet.dst) {
                return End::Arrives { to: (packet.dst, packet.port), masqueraded: false };
            }
            match self.tables.walk("filter", "INPUT", &node, &mut state, choices) {
                Some(Verdict::Drop) => return End::Dropped,
                Some(Verdict::Reject) => return End::Refused,
                _ => {}
            }
            let server = Server { address: packet.dst, port: packet.port, protocol: Protocol::Tcp };
            let Some((_, endpoints)) = self.servers.get(&server) else {
                return End::Arrives { to: (packet.dst, packet.port), masqueraded: false };
            };
            let usable: Vec<&Target> = endpoints.iter().filter(|(_, w)| **w != 0).map(|(t, _)| t).collect();
            if usable.is_empty() {
                return End::Refused;
            }
            let chosen = usable[choices.choose(usable.len())];
            state.translated = Some((chosen.address, chosen.port));
            self.tables.walk("nat", "POSTROUTING", &node, &mut state, choices);
            End::Arrives { to: (chosen.address, chosen.port), masqueraded: state.masqueraded }
        })
    }

    fn ends(&self, src: &str, dst: &str, port: u16) -> Vec<End> {
        let packet = Packet { src: address(src), dst: address(dst), protocol: "tcp", port };
        self.trace(packet).into_iter().collect()
    }
}

/// A member as ipset keeps it: its network without bits behind the prefix, and one address without a length.
fn kept(member: &str) -> String {
    let Some((rest, length)) = member.rsplit_once('/') else { return member.to_owned() };
    assert_ne!(length, "0", "ipset refuses all of it: {member}");
    let (rest, network) = rest.rsplit_once(',').expect("what has a network has more");
    let range = masked(Prefix { address: address(network), length: length.parse().expect("a length") });
    let bits = if range.address.is_ipv4() { 32 } else { 128 };
    let length = if range.length == bits { String::new() } else { format!("/{length}") };
    format!("{rest},{}{length}", range.address)
}

fn prefix((network, length): (&str, u8)) -> Prefix {
    Prefix { address: address(network), length }
}

fn host(view: &View) -> Host {
    let mut host = Host::new(config(true, false), Family::V4);
    host.sync(view, Scope::All);
    host
}

fn arrives(to: &str, port: u16, masqueraded: bool) -> End {
    End::Arrives { to: (address(to), port), masqueraded }
}

/// IPVS has one list of endpoints per address: an external Local policy concerns every client, and keeps its address.
/// Loopback is left out.
fn as_ipvs_does(mut row: Row) -> Row {
    if row.from == Client::Loopback {
        row.by = By::Nobody;
    } else if row.service == 2 && row.to != To::ClusterAddress {
        (row.by, row.masqueraded) = (By::Here, false);
    }
    row
}

#[test]
fn the_table_of_flows_holds_in_every_configuration_as_far_as_ipvs_can() {
    for (detects_pods, masquerade_all) in CONFIGURATIONS {
        let mut host = Host::new(config(detects_pods, masquerade_all), Family::V4);
        host.sync(&table::cluster(), Scope::All);
        for row in FLOWS {
            let row = as_ipvs_does(row.under(detects_pods, masquerade_all));
            let ends = host.trace(row.packet());
            assert_eq!(ends, row.ends(), "{row:?}, pods known: {detects_pods}, all: {masquerade_all}");
        }
    }
}

#[test]
fn without_endpoints_clients_are_refused_and_a_local_policy_falls_back() {
    let mut local = service(2);
    (local.internal_policy, local.external_policy) = (TrafficPolicy::Local, TrafficPolicy::Local);
    let host = host(&view(vec![
        Change::PutService(service(1)),
        Change::PutService(local),
        slice(2, vec![endpoint("10.244.2.2", "there")]),
    ]));
    for (dst, port) in [("10.96.0.1", 80), (NODE_ADDRESS, 30_001), ("198.51.100.1", 80)] {
        assert_eq!(host.ends(OUTSIDE, dst, port), [End::Refused], "{dst}");
    }
    assert_eq!(host.ends(POD, "10.96.0.2", 80), [arrives("10.244.2.2", 8080, false)]);
}

#[test]
fn a_local_policy_of_a_service_inside_the_cluster_alone_does_not() {
    let mut local = service(1);
    local.internal_policy = TrafficPolicy::Local;
    (local.external_addresses, local.load_balancer_addresses) = (Vec::new(), Vec::new());
    local.ports.iter_mut().for_each(|port| port.node_port = 0);
    let host = host(&view(vec![Change::PutService(local), slice(1, vec![endpoint("10.244.2.2", "there")])]));
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [End::Refused]);
}

#[test]
fn addresses_that_no_packet_can_be_sent_to_are_left_out() {
    let mut odd = service(1);
    odd.external_addresses = vec![address("224.0.0.9"), address("198.51.100.9")];
    odd.load_balancer_addresses = vec![address("127.0.0.1")];
    let host = host(&view(vec![Change::PutService(odd), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    assert_eq!(host.bound, BTreeSet::from(["10.96.0.1", "198.51.100.9"].map(address)));
}

/// A broadcast address, for one: what is one depends on the routes.
#[test]
fn what_the_kernel_refuses_is_missed_by_nobody_and_tried_again_with_the_next_plan() {
    let view = view(vec![
        Change::PutService(service(1)),
        slice(1, vec![endpoint("10.244.1.1", NODE), endpoint("192.0.2.255", "there")]),
    ]);
    let mut host = host(&view);
    let mut refused = Vec::new();
    for (server, (_, endpoints)) in &mut host.servers {
        endpoints.retain(|endpoint, weight| {
            let is_broadcast = endpoint.address == address("192.0.2.255");
            refused.extend(is_broadcast.then_some(Op::PutEndpoint(*server, *endpoint, *weight)));
            !is_broadcast
        });
    }
    assert!(!refused.is_empty() && !host.planner.is_intact(&host.observe()));
    refused.iter().for_each(|op| host.planner.refused(op));
    assert!(host.planner.is_intact(&host.observe()));
    let again = host.planner.plan(&view, Scope::Changed(&Changes::default()), 0);
    assert_eq!(again.additions, refused);

    let bind = Op::Bind(address("198.51.100.1"));
    host.bound.remove(&address("198.51.100.1"));
    host.planner.refused(&bind);
    let (server, _) = host.servers.pop_first().expect("there are some");
    host.planner.refused(&Op::PutServer(server, 0));
    refused.iter().for_each(|op| host.planner.refused(op));
    assert!(host.planner.is_intact(&host.observe()));
    let again = host.planner.plan(&view, Scope::Changed(&Changes::default()), 0).additions;
    assert!(again.contains(&bind) && again.contains(&Op::PutServer(server, 0)), "{again:?}");
}

#[test]
fn other_ports_of_the_node_are_not_reachable_by_the_address_of_a_service() {
    let host = host(&table::cluster());
    assert_eq!(host.ends(POD, "10.96.0.1", 22), [End::Refused]);
}

#[test]
fn source_ranges_concern_the_balancer_address_alone() {
    let mut limited = service(1);
    limited.source_ranges = vec![prefix(("203.0.113.0", 24))];
    let host = host(&view(vec![Change::PutService(limited), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    let answered = [arrives("10.244.1.1", 8080, true)];
    assert_eq!(host.ends(OUTSIDE, "198.51.100.1", 80), answered);
    assert_eq!(host.ends("198.18.0.1", "198.51.100.1", 80), [End::Dropped]);
    assert_eq!(host.ends("198.18.0.1", NODE_ADDRESS, 30_001), answered);
    let out = &host.tables.chains("filter")["KUBE-IPVS-OUT-FILTER"];
    assert!(out[0].join(" ").contains("--vaddr 198.51.100.1 --vproto tcp --vport 80"), "{out:?}");
}

#[test]
fn a_source_range_of_everybody_restricts_nobody() {
    let mut open = service(1);
    open.source_ranges = [("203.0.113.0", 24), ("0.0.0.0", 0)].map(prefix).to_vec();
    let host = host(&view(vec![Change::PutService(open), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    assert_eq!(host.ends("198.18.0.1", "198.51.100.1", 80), [arrives("10.244.1.1", 8080, true)]);
    assert_eq!(host.ends(NODE_ADDRESS, "198.51.100.1", 80), [arrives("10.244.1.1", 8080, true)]);
    assert!(host.tables.sets["KUBE-LOAD-BALANCER-FW"].is_empty());
    assert!(host.tables.chains("filter")["KUBE-IPVS-OUT-FILTER"].is_empty());
}

#[test]
fn a_pod_that_reaches_itself_is_masqueraded() {
    let view = view(vec![Change::PutService(service(1)), slice(1, vec![endpoint(POD, NODE)])]);
    assert_eq!(host(&view).ends(POD, "10.96.0.1", 80), [arrives(POD, 8080, true)]);
}

#[test]
fn an_endpoint_that_leaves_drains_and_one_that_comes_back_does_not() {
    let one = || table::cluster();
    let moved = |addresses: &[&str]| {
        let mut view = one();
        let endpoints = addresses.iter().map(|address| endpoint(address, NODE)).collect();
        let revision = Revision { epoch: 1, sequence: 2 };
        view.apply(Update { revision, snapshot: false, changes: vec![slice(1, endpoints)] });
        view
    };
    let services = BTreeSet::from([ObjectName::new("demo", "svc1")]);
    let name = Changes { services, ..Changes::default() };
    let mut host = host(&one());
    let plan = host.sync(&moved(&["10.244.1.200"]), Scope::Changed(&name));
    assert!(plan.removals.is_empty() && plan.restore.is_none(), "{plan:?}");
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [arrives("10.244.1.200", 8080, false)]);
    host.sync(&moved(&["10.244.1.200", "10.244.1.1"]), Scope::Changed(&name));
    assert_eq!(host.ends(POD, "10.96.0.1", 80).len(), 2);
    host.now_ms = host.planner.next_release_ms().expect("one drains");
    let plan = host.sync(&moved(&["10.244.1.200", "10.244.1.1"]), Scope::Changed(&name));
    assert_eq!(plan.removals.len(), 3, "of the cluster address, the node port and the balancer: {plan:?}");
    assert_eq!(host.planner.next_release_ms(), None);
}

#[test]
fn a_service_that_is_gone_leaves_nothing_and_the_servers_of_others_stay() {
    // Beside others a node port that the default range does not have, and an address that the node has.
    let mut odd = service(4);
    (odd.ports[0].node_port, odd.external_addresses) = (20_080, vec![address(NODE_ADDRESS)]);
    let mut view = table::cluster();
    let revision = Revision { epoch: 1, sequence: 2 };
    view.apply(Update { revision, snapshot: false, changes: vec![Change::PutService(odd)] });
    let first = host(&view);
    let made = first.planner.made();
    let noted: Vec<String> = made.iter().map(ToString::to_string).collect();
    assert_eq!(noted, [80, 20_080, 30_001, 30_002, 30_003].map(|port| format!("TCP {NODE_ADDRESS}:{port}")));

    let foreign = ["TCP 198.18.0.9:80", "UDP 192.0.2.11:20080", "TCP 192.0.2.11:30500"];
    let foreign = BTreeSet::from(foreign.map(|text| text.parse().expect("a server")));
    let mut observed = first.observe();
    observed.servers.extend(foreign.iter().map(|server| (*server, (0, BTreeMap::new()))));
    let servers = observed.servers.clone();
    let planner = Planner::adopt(config(true, false), Family::V4, observed, made.clone());
    let mut second = Host { planner, servers, ..first };
    assert_eq!(second.planner.made(), made, "until it knows better");
    second.sync(&table::view(Vec::new()), Scope::All);
    assert_eq!(second.servers.into_keys().collect::<BTreeSet<_>>(), foreign);
    assert!(second.planner.made().is_empty());
    assert!(second.bound.is_empty());
    assert!(second.tables.sets.values().all(BTreeSet::is_empty));
}

#[test]
fn a_server_is_read_as_it_is_written_and_nothing_else_is() {
    for text in ["TCP 192.0.2.11:30080", "UDP [2001:db8::1]:53", "SCTP 192.0.2.11:9"] {
        assert_eq!(text.parse::<Server>().expect("a server").to_string(), text);
    }
    for text in ["", "TCP", "tcp 192.0.2.11:80", "TCP 192.0.2.11", "TCP 192.0.2.11:80 "] {
        assert_eq!(text.parse::<Server>(), Err(NoServer), "{text:?}");
    }
}

#[test]
fn a_restart_changes_nothing_and_what_somebody_took_away_is_missed() {
    let first = host(&table::cluster());
    assert!(first.planner.is_intact(&first.observe()));
    let planner = Planner::adopt(config(true, false), Family::V4, first.observe(), first.planner.made());
    let mut second = Host { planner, ..first };
    let plan = second.sync(&table::cluster(), Scope::All);
    assert!(plan.additions.is_empty() && plan.removals.is_empty(), "{plan:?}");
    let mut damaged = second.observe();
    damaged.bound.pop_first();
    assert!(!second.planner.is_intact(&damaged));
    let mut damaged = second.observe();
    damaged.saved = Saved::default();
    assert!(!second.planner.is_intact(&damaged));
}

#[test]
fn source_ranges_stay_however_they_are_written() {
    let mut v4 = service(1);
    v4.source_ranges =
        [("203.0.113.7", 32), ("203.0.113.77", 24), ("255.255.255.255", 32)].map(prefix).to_vec();
    let v6 = Service {
        addresses: vec![address("fd00:96::1")],
        load_balancer_addresses: vec![address("2001:db8::1")],
        source_ranges: [("2001:db8:1::7", 128), ("2001:db8:2::7", 48)].map(prefix).to_vec(),
        ..service(1)
    };
    for (family, limited, ranges) in [(Family::V4, v4, 3), (Family::V6, v6, 2)] {
        let view = view(vec![Change::PutService(limited)]);
        let mut first = Host::new(config(true, false), family);
        first.sync(&view, Scope::All);
        let set = sets::name("KUBE-LOAD-BALANCER-SOURCE-CIDR", family);
        let members = first.tables.sets[&set].clone();
        assert_eq!(members.len(), ranges);
        assert!(first.planner.is_intact(&first.observe()), "{members:?}");
        // Should ipset ever write one otherwise, it is the same one.
        let mut observed = first.observe();
        let length = if family == Family::V4 { "/32" } else { "/128" };
        let members_otherwise = members.iter().map(|member| match member.contains('/') {
            true => member.clone(),
            false => format!("{member}{length}"),
        });
        observed.sets.insert(set.clone(), members_otherwise.collect());
        let planner = Planner::adopt(config(true, false), family, observed, first.planner.made());
        let mut second = Host { planner, ..first };
        second.sync(&view, Scope::All);
        assert_eq!(second.tables.sets[&set], members);
        assert!(second.planner.is_intact(&second.observe()));
    }
}

#[test]
fn affinity_is_a_property_of_every_server_of_a_port() {
    let mut sticky = service(1);
    sticky.affinity_secs = 7;
    let host = host(&view(vec![Change::PutService(sticky), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    assert_eq!(host.servers.len(), 3);
    assert!(host.servers.values().all(|(affinity, _)| *affinity == 7));
}

#[test]
fn names_of_sets_fit_and_differ_by_family() {
    let mut names = BTreeSet::new();
    for set in sets::ALL {
        for family in Family::ALL {
            let name = sets::name(set.name, family);
            assert!(name.len() <= 31 && names.insert(name.clone()), "{name}");
        }
    }
}
