use fairlead_model::{Change, Prefix, Protocol, ServicePort, TrafficPolicy};

use super::*;
use crate::Changes;
use crate::classic::trace::{
    End, Node, Packet,
    iptables::Tables,
    table::{
        self, CONFIGURATIONS, FLOWS, NODE, NODE_ADDRESS, OUTSIDE, POD, address, config, endpoint, service,
        slice, view,
    },
};

/// A kernel, and the planner that writes it.
struct Host {
    planner: Planner,
    tables: Tables,
}

impl Host {
    fn new(config: Config) -> Self {
        Self::over(config, Tables::new())
    }

    fn over(config: Config, tables: Tables) -> Self {
        let saved = Saved::parse(&tables.save());
        Self { planner: Planner::adopt(config, Family::V4, saved), tables }
    }

    fn sync(&mut self, view: &View, scope: Scope<'_>) -> Option<Restore> {
        let restore = self.planner.plan(view, scope);
        if let Some(restore) = &restore {
            self.tables.restore(&restore.text);
        }
        restore
    }

    fn ends(&self, src: &str, dst: &str, port: u16) -> Vec<End> {
        let packet = Packet { src: address(src), dst: address(dst), protocol: "tcp", port };
        self.tables.ends(&table::node(), packet).into_iter().collect()
    }
}

fn host(view: &View) -> Host {
    let mut host = Host::new(config(true, false));
    host.sync(view, Scope::All).expect("something to write");
    host
}

fn arrives(to: &str, port: u16, masqueraded: bool) -> End {
    End::Arrives { to: (address(to), port), masqueraded }
}

fn only(name: &str) -> Changes {
    Changes { services: BTreeSet::from([ObjectName::new("demo", name)]), ..Changes::default() }
}

#[test]
fn the_table_of_flows_holds_in_every_configuration() {
    for (detects_pods, masquerade_all) in CONFIGURATIONS {
        let mut host = Host::new(config(detects_pods, masquerade_all));
        host.sync(&table::cluster(), Scope::All);
        for row in FLOWS {
            let row = row.under(detects_pods, masquerade_all);
            let ends = host.tables.ends(&table::node(), row.packet());
            assert_eq!(ends, row.ends(), "{row:?}, pods known: {detects_pods}, all: {masquerade_all}");
        }
    }
}

#[test]
fn without_endpoints_every_address_refuses_and_with_remote_ones_only_a_local_policy_drops() {
    let mut local = service(2);
    (local.internal_policy, local.external_policy) = (TrafficPolicy::Local, TrafficPolicy::Local);
    let host = host(&view(vec![
        Change::PutService(service(1)),
        Change::PutService(local),
        slice(2, vec![endpoint("10.244.2.2", "there")]),
    ]));
    for (dst, port) in [("10.96.0.1", 80), (NODE_ADDRESS, 30_001), ("198.51.100.1", 80)] {
        assert_eq!(host.ends(OUTSIDE, dst, port), [End::Refused], "{dst}");
        assert_eq!(host.ends(POD, dst, port), [End::Refused], "{dst}");
    }
    for (dst, port) in [("10.96.0.2", 80), (NODE_ADDRESS, 30_002), ("198.51.100.2", 80)] {
        assert_eq!(host.ends(OUTSIDE, dst, port), [End::Dropped], "{dst}");
    }
    // Clients of this node are not subject to the external policy.
    assert_eq!(host.ends(POD, "198.51.100.2", 80), [arrives("10.244.2.2", 8080, false)]);
    assert_eq!(host.ends(POD, "10.96.0.2", 80), [End::Dropped]);
}

#[test]
fn source_ranges_concern_the_balancer_address_alone() {
    let mut limited = service(1);
    limited.source_ranges = vec![Prefix { address: address("203.0.113.0"), length: 24 }];
    let host = host(&view(vec![Change::PutService(limited), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    let answered = [arrives("10.244.1.1", 8080, true)];
    assert_eq!(host.ends(OUTSIDE, "198.51.100.1", 80), answered);
    assert_eq!(host.ends("198.18.0.1", "198.51.100.1", 80), [End::Dropped]);
    assert_eq!(host.ends(POD, "198.51.100.1", 80), [End::Dropped]);
    assert_eq!(host.ends("198.18.0.1", NODE_ADDRESS, 30_001), answered);
    assert_eq!(host.ends("198.18.0.1", "10.96.0.1", 80), answered);
}

#[test]
fn a_node_in_the_source_ranges_may_also_use_the_balancer_address_as_its_source() {
    let mut limited = service(1);
    limited.source_ranges = vec![Prefix { address: address("192.0.2.0"), length: 24 }];
    let host = host(&view(vec![Change::PutService(limited), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    let held = Node { local: vec![address(NODE_ADDRESS), address("198.51.100.1")] };
    let packet =
        Packet { src: address("198.51.100.1"), dst: address("198.51.100.1"), protocol: "tcp", port: 80 };
    let ends = host.tables.ends(&held, packet);
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [arrives("10.244.1.1", 8080, true)]);
}

#[test]
fn a_pod_that_reaches_itself_is_masqueraded() {
    let view = view(vec![Change::PutService(service(1)), slice(1, vec![endpoint(POD, NODE)])]);
    assert_eq!(host(&view).ends(POD, "10.96.0.1", 80), [arrives(POD, 8080, true)]);
}

#[test]
fn node_ports_are_served_where_they_are_selected() {
    let view = view(vec![Change::PutService(service(1)), slice(1, vec![endpoint("10.244.1.1", NODE)])]);
    let only = crate::classic::NodePortAddresses::Only(vec![address(NODE_ADDRESS)]);
    let mut host = Host::new(Config { node_ports: only, ..config(true, false) });
    host.sync(&view, Scope::All);
    let second = Node { local: vec![address(NODE_ADDRESS), address("192.0.2.99")] };
    let ends = |dst: &str| {
        let packet = Packet { src: address(OUTSIDE), dst: address(dst), protocol: "tcp", port: 30_001 };
        host.tables.ends(&second, packet).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(ends(NODE_ADDRESS), [arrives("10.244.1.1", 8080, true)]);
    assert_eq!(ends("192.0.2.99"), [arrives("192.0.2.99", 30_001, false)]);
}

#[test]
fn the_same_number_on_two_protocols_is_two_ports() {
    let mut both = service(1);
    let udp = ServicePort { name: "dns".into(), protocol: Protocol::Udp, ..both.ports[0].clone() };
    both.ports.push(udp);
    let host = host(&view(vec![Change::PutService(both), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [arrives("10.244.1.1", 8080, false)]);
    let packet = Packet { src: address(POD), dst: address("10.96.0.1"), protocol: "udp", port: 80 };
    assert_eq!(host.tables.ends(&table::node(), packet), BTreeSet::from([End::Refused]));
}

#[test]
fn affinity_is_asked_before_chance_and_set_with_each_connection() {
    let mut sticky = service(1);
    sticky.affinity_secs = 7;
    let host = host(&view(vec![
        Change::PutService(sticky),
        slice(1, vec![endpoint("10.244.1.1", NODE), endpoint("10.244.2.1", "there")]),
    ]));
    let nat = host.tables.chains("nat");
    let (name, rules) = nat.iter().find(|(name, _)| name.starts_with("KUBE-SVC-")).expect("the chain");
    let asked = |rule: &Vec<String>| rule.iter().any(|word| word == "--rcheck");
    let order: Vec<bool> = rules.iter().skip(1).map(asked).collect();
    assert_eq!(order, [true, true, false, false], "{name}: {rules:?}");
    let set = nat.iter().filter(|(name, _)| name.starts_with("KUBE-SEP-"));
    assert!(
        set.clone().count() == 2
            && set
                .flat_map(|(_, rules)| rules.last())
                .all(|rule| { rule.iter().any(|word| word == "--set") })
    );
}

#[test]
fn of_n_endpoints_each_is_as_likely() {
    let endpoints = (1..=4).map(|number| endpoint(&format!("10.244.1.{number}"), NODE)).collect();
    let host = host(&view(vec![Change::PutService(service(1)), slice(1, endpoints)]));
    let nat = host.tables.chains("nat");
    let chain = nat.iter().find(|(name, _)| name.starts_with("KUBE-SVC-")).expect("the chain").1;
    let chance = |rule: &Vec<String>| {
        rule.iter().position(|word| word == "--probability").map(|at| rule[at + 1].clone())
    };
    let chances: Vec<_> = chain.iter().skip(1).map(chance).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(chances, [text("0.2500000000"), text("0.3333333333"), text("0.5000000000"), None]);
}

#[test]
fn many_endpoints_have_no_comments_from_the_first_restore_on() {
    let many = |count: u16| {
        let endpoints =
            (0..count).map(|number| endpoint(&format!("10.244.{}.{}", number / 250, 1 + number % 250), NODE));
        view(vec![Change::PutService(service(1)), slice(1, endpoints.collect())])
    };
    for (count, commented) in [(1_000, true), (1_001, false)] {
        let view = many(count);
        let mut planner = Planner::adopt(config(true, false), Family::V4, Saved::default());
        let restore = planner.plan(&view, Scope::All).expect("something to write");
        assert_eq!(restore.text.contains("svc1:web -> "), commented, "{count}");
        assert!(planner.plan(&view, Scope::All).is_none(), "{count}: nothing is new");
    }
}

#[test]
fn a_partial_restore_has_the_chains_of_what_changed_and_no_others() {
    let mut host = host(&table::cluster());
    let mut changed = table::cluster();
    let revision = fairlead_model::Revision { epoch: 1, sequence: 2 };
    let moved = slice(1, vec![endpoint("10.244.1.200", NODE)]);
    changed.apply(fairlead_model::Update { revision, snapshot: false, changes: vec![moved] });
    let restore = host.sync(&changed, Scope::Changed(&only("svc1"))).expect("a change");
    let own = |prefix: &str| restore.text.lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(own(":KUBE-PROXY-CANARY"), 0);
    assert_eq!(own(":KUBE-SVC-"), 1);
    assert_eq!(own(":KUBE-SEP-"), 3, "one new, two that go");
    assert_eq!(own("-X KUBE-SEP-"), 2);
    assert_eq!(own(":KUBE-EXT-"), 0);
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [arrives("10.244.1.200", 8080, false)]);
    assert_eq!(host.sync(&changed, Scope::Changed(&only("svc1"))), None, "nothing changed since");
}

#[test]
fn a_service_that_is_gone_leaves_nothing() {
    let mut host = host(&table::cluster());
    host.sync(&view(Vec::new()), Scope::All).expect("something to take away");
    let left: Vec<_> =
        host.tables.chains("nat").keys().filter(|chain| saved::is_service_chain(chain)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [arrives("10.96.0.1", 80, false)]);
}

#[test]
fn a_restarted_planner_takes_away_what_the_former_one_left() {
    let first = host(&table::cluster());
    let mut second = Host::over(config(true, false), first.tables);
    let restore =
        second.sync(&view(Vec::new()), Scope::Changed(&Changes::default())).expect("a full restore");
    assert!(restore.text.contains(":KUBE-PROXY-CANARY"), "all of it: {}", restore.text);
    assert!(!restore.text.contains("-I "), "the jumps are there");
    assert!(!second.tables.chains("nat").keys().any(|chain| saved::is_service_chain(chain)));
}

#[test]
fn what_somebody_flushed_comes_back_with_the_next_observation() {
    let mut flushed = host(&table::cluster()).tables;
    flushed.flush();
    let mut host = Host::over(config(true, false), flushed);
    host.sync(&table::cluster(), Scope::All);
    assert_eq!(host.ends(OUTSIDE, "198.51.100.2", 80), [arrives("10.244.1.2", 8080, false)]);
}

#[test]
fn removal_takes_all_of_ours_and_nothing_of_others() {
    let mut tables = Tables::new();
    let others =
        "*nat\n:KUBE-HOUSE - [0:0]\n-A KUBE-HOUSE -s 10.0.0.1 -j ACCEPT\n-A OUTPUT -j KUBE-HOUSE\nCOMMIT\n";
    tables.restore(others);
    let before = tables.save();
    let mut host = Host::over(config(true, false), tables);
    host.sync(&table::cluster(), Scope::All);
    assert_ne!(host.tables.save(), before);
    let removal =
        Saved::parse(&host.tables.save()).removal(&saved::is_ours, &[]).expect("there is something");
    host.tables.restore(&removal);
    assert_eq!(host.tables.save(), before);
    assert_eq!(Saved::parse(&before).removal(&saved::is_ours, &[]), None);
}

#[test]
fn the_chain_of_a_kubelet_stays() {
    let mut host = host(&table::cluster());
    host.tables.restore("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n");
    let removal =
        Saved::parse(&host.tables.save()).removal(&saved::is_ours, &[]).expect("there is something");
    host.tables.restore(&removal);
    let filter = host.tables.chains("filter");
    assert!(filter.contains_key("KUBE-FIREWALL") && !filter.contains_key("KUBE-SERVICES"));
}

#[test]
fn packets_to_loopback_from_outside_are_dropped_and_health_checks_are_let_in() {
    let mut checked = service(2);
    (checked.external_policy, checked.health_check_port) = (TrafficPolicy::Local, 32_000);
    let host = host(&view(vec![Change::PutService(checked), slice(2, vec![endpoint("10.244.1.2", NODE)])]));
    assert_eq!(host.ends(OUTSIDE, "127.0.0.1", 10_250), [End::Dropped]);
    let rule = host.tables.chains("filter")["KUBE-NODEPORTS"][0].join(" ");
    assert!(rule.contains("--dport 32000") && rule.ends_with("-j ACCEPT"), "{rule}");
}

#[test]
fn a_rule_or_jump_that_somebody_took_away_is_missed() {
    let host = host(&table::cluster());
    let intact = |tables: &Tables| host.planner.is_intact(&Saved::parse(&tables.save()));
    assert!(intact(&host.tables));
    for damage in [
        "*nat\n:KUBE-POSTROUTING - [0:0]\nCOMMIT\n",
        "*nat\n:PREROUTING - [0:0]\nCOMMIT\n",
        "*filter\n:FORWARD - [0:0]\nCOMMIT\n",
        "*mangle\n-X KUBE-PROXY-CANARY\nCOMMIT\n",
    ] {
        let mut damaged = host.tables.clone();
        damaged.restore(damage);
        assert!(!intact(&damaged), "{damage}");
    }
}

#[test]
fn a_chain_that_the_next_mode_uses_stays_without_the_jumps_that_it_does_not_use() {
    let mut host = host(&table::cluster());
    let kept = |table: Table, chain: &str| crate::ipvs::rules::is_ours(table, chain);
    let ours = |table: Table, chain: &str| saved::is_ours(table, chain) && !kept(table, chain);
    let jumps: Vec<_> = JUMPS
        .iter()
        .filter(|jump| !crate::ipvs::rules::JUMPS.iter().any(|other| other.same(jump)))
        .copied()
        .collect();
    let removal = Saved::parse(&host.tables.save()).removal(&ours, &jumps).expect("there is something");
    host.tables.restore(&removal);
    let left = |chain: &str| host.tables.chains("filter")[chain].len();
    // Of those to the firewall, which the next mode has too, it asks with every packet.
    assert_eq!(["INPUT", "FORWARD", "OUTPUT"].map(left), [0, 1, 0]);
    assert!(host.tables.chains("nat").contains_key("KUBE-SERVICES"));
}
