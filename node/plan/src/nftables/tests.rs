use fairlead_model::{Change as Put, Prefix, Revision, TrafficPolicy, Update};

use super::*;
use crate::Changes;
use crate::classic::trace::{
    End, Node, Packet,
    nftables::Table,
    table::{
        self, By, CONFIGURATIONS, Client, FLOWS, NODE, NODE_ADDRESS, OUTSIDE, POD, address, config, endpoint,
        service, slice, view,
    },
};

/// A kernel, and the planner that writes it.
struct Host {
    planner: Planner,
    table: Table,
    now_ms: u64,
}

impl Host {
    fn new(config: Config) -> Self {
        Self::over(config, Table::default())
    }

    fn over(config: Config, table: Table) -> Self {
        let planner = Planner::adopt(config, Family::V4, table.observe());
        Self { planner, table, now_ms: 0 }
    }

    fn sync(&mut self, view: &View, scope: Scope<'_>) -> Option<String> {
        let scripts = self.planner.plan(view, scope, self.now_ms);
        for script in scripts.cleaning.iter().map(String::as_str).chain(scripts.changes()) {
            self.table.run(script);
        }
        scripts.change
    }

    fn ends(&self, src: &str, dst: &str, port: u16) -> Vec<End> {
        let packet = Packet { src: address(src), dst: address(dst), protocol: "tcp", port };
        self.table.ends(&table::node(), packet).into_iter().collect()
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

fn changed(mut view: View, changes: Vec<Put>) -> View {
    let sequence = view.revision().sequence + 1;
    view.apply(Update { revision: Revision { epoch: 1, sequence }, snapshot: false, changes });
    view
}

#[test]
fn the_table_of_flows_holds_in_every_configuration_but_for_loopback() {
    for (detects_pods, masquerade_all) in CONFIGURATIONS {
        let mut host = Host::new(config(detects_pods, masquerade_all));
        host.sync(&table::cluster(), Scope::All);
        for row in FLOWS {
            let mut row = row.under(detects_pods, masquerade_all);
            if row.from == Client::Loopback {
                // Node ports on loopback do not exist in this mode.
                row.by = By::Nobody;
            }
            let ends = host.table.ends(&table::node(), row.packet());
            assert_eq!(ends, row.ends(), "{row:?}, pods known: {detects_pods}, all: {masquerade_all}");
        }
    }
}

#[test]
fn without_endpoints_every_address_refuses_and_with_remote_ones_only_a_local_policy_drops() {
    let mut local = service(2);
    (local.internal_policy, local.external_policy) = (TrafficPolicy::Local, TrafficPolicy::Local);
    let host = host(&view(vec![
        Put::PutService(service(1)),
        Put::PutService(local),
        slice(2, vec![endpoint("10.244.2.2", "there")]),
    ]));
    for (dst, port) in [("10.96.0.1", 80), (NODE_ADDRESS, 30_001), ("198.51.100.1", 80)] {
        assert_eq!(host.ends(OUTSIDE, dst, port), [End::Refused], "{dst}");
        assert_eq!(host.ends(POD, dst, port), [End::Refused], "{dst}");
    }
    for (dst, port) in [("10.96.0.2", 80), (NODE_ADDRESS, 30_002), ("198.51.100.2", 80)] {
        assert_eq!(host.ends(OUTSIDE, dst, port), [End::Dropped], "{dst}");
    }
    assert_eq!(host.ends(POD, "198.51.100.2", 80), [arrives("10.244.2.2", 8080, false)]);
    assert_eq!(host.ends(NODE_ADDRESS, "198.51.100.2", 80), [arrives("10.244.2.2", 8080, true)]);
    assert_eq!(host.ends(POD, "10.96.0.2", 80), [End::Dropped]);
}

#[test]
fn an_unknown_port_is_refused_and_an_address_that_nobody_has_is_dropped() {
    let host = host(&table::cluster());
    assert_eq!(host.ends(POD, "10.96.0.1", 81), [End::Refused]);
    assert_eq!(host.ends(NODE_ADDRESS, "10.96.0.1", 81), [End::Refused]);
    assert_eq!(host.ends(POD, "10.96.0.99", 80), [End::Dropped]);
}

#[test]
fn source_ranges_concern_the_balancer_address_alone() {
    let mut limited = service(1);
    limited.source_ranges = vec![
        Prefix { address: address("203.0.113.0"), length: 24 },
        Prefix { address: address("192.0.2.0"), length: 24 },
    ];
    let host = host(&view(vec![Put::PutService(limited), slice(1, vec![endpoint("10.244.1.1", NODE)])]));
    let answered = [arrives("10.244.1.1", 8080, true)];
    assert_eq!(host.ends(OUTSIDE, "198.51.100.1", 80), answered);
    assert_eq!(host.ends("198.18.0.1", "198.51.100.1", 80), [End::Dropped]);
    assert_eq!(host.ends(POD, "198.51.100.1", 80), [End::Dropped]);
    assert_eq!(host.ends("198.18.0.1", NODE_ADDRESS, 30_001), answered);
    let held = Node { local: vec![address(NODE_ADDRESS), address("198.51.100.1")] };
    let packet =
        Packet { src: address("198.51.100.1"), dst: address("198.51.100.1"), protocol: "tcp", port: 80 };
    assert_eq!(host.table.ends(&held, packet), BTreeSet::from(answered));
}

#[test]
fn a_pod_that_reaches_itself_is_masqueraded() {
    let view = view(vec![Put::PutService(service(1)), slice(1, vec![endpoint(POD, NODE)])]);
    assert_eq!(host(&view).ends(POD, "10.96.0.1", 80), [arrives(POD, 8080, true)]);
}

#[test]
fn a_change_writes_the_chain_of_the_service_and_nothing_else() {
    let mut host = host(&table::cluster());
    let moved = slice(1, vec![endpoint("10.244.1.200", NODE)]);
    let script =
        host.sync(&changed(table::cluster(), vec![moved]), Scope::Changed(&only("svc1"))).expect("a change");
    let rules = script.lines().filter(|line| line.starts_with("add rule")).count();
    assert_eq!(rules, 1, "{script}");
    assert!(!script.contains("svc2") && !script.contains("table"), "{script}");
    assert_eq!(host.table.elements(fixed::HAIRPINS).len(), 3);
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [arrives("10.244.1.200", 8080, false)]);
}

#[test]
fn nothing_new_is_nothing_to_do() {
    let mut host = host(&table::cluster());
    assert_eq!(host.sync(&table::cluster(), Scope::All), None);
}

#[test]
fn a_chain_is_emptied_at_once_and_deleted_when_it_has_rested() {
    let mut host = host(&table::cluster());
    host.sync(&view(Vec::new()), Scope::All).expect("something to take away");
    assert_eq!(host.ends(POD, "10.96.0.1", 80), [End::Dropped], "nobody has the address");
    let own = |host: &Host| host.table.chains().keys().filter(|chain| chain.contains('/')).count();
    assert_eq!(own(&host), 8);
    host.now_ms = host.planner.next_release_ms().expect("chains rest");
    host.sync(&view(Vec::new()), Scope::All);
    assert_eq!((own(&host), host.planner.next_release_ms()), (0, None));
}

#[test]
fn chains_that_the_kernel_still_holds_are_deleted_later_unless_they_are_wanted_again() {
    let mut planner = host(&table::cluster()).planner;
    planner.plan(&view(Vec::new()), Scope::All, 0);
    let due = planner.next_release_ms().expect("chains rest");
    let refused = planner.plan(&view(Vec::new()), Scope::All, due).cleaning.expect("they have rested");
    assert_eq!(planner.next_release_ms(), None);
    planner.keep_what_is_left(due);
    let later = planner.next_release_ms().expect("they rest again");
    assert!(later > due);
    // A service is there again in the very plan whose cleaning is refused.
    let scripts = planner.plan(&table::cluster(), Scope::All, later);
    assert_eq!(scripts.cleaning.as_ref(), Some(&refused));
    planner.keep_what_is_left(later);
    let chains = |text: &str| text.lines().count();
    let last = planner.plan(&table::cluster(), Scope::All, u64::MAX).cleaning;
    assert!(last.as_deref().map_or(0, chains) < chains(&refused), "{last:?}");
}

#[test]
fn a_service_that_comes_back_before_its_chains_were_deleted_keeps_them() {
    let mut host = host(&table::cluster());
    host.sync(&view(Vec::new()), Scope::All);
    host.sync(&table::cluster(), Scope::All);
    host.now_ms = 10_000;
    host.sync(&table::cluster(), Scope::All);
    assert_eq!(host.ends(OUTSIDE, "198.51.100.2", 80), [arrives("10.244.1.2", 8080, false)]);
}

#[test]
fn affinity_survives_a_restart_and_follows_a_new_timeout() {
    let sticky = |secs| {
        let mut sticky = service(1);
        sticky.affinity_secs = secs;
        let endpoints = vec![endpoint("10.244.1.1", NODE), endpoint("10.244.2.1", "there")];
        view(vec![Put::PutService(sticky), slice(1, endpoints)])
    };
    let first = host(&sticky(7));
    let mut second = Host::over(config(true, false), first.table);
    let script = second.sync(&sticky(7), Scope::All).expect("all of it");
    assert!(!script.contains("delete set"), "{script}");
    let ends = [arrives("10.244.1.1", 8080, false), arrives("10.244.2.1", 8080, false)];
    assert_eq!(second.ends(POD, "10.96.0.1", 80), ends);
    second.sync(&sticky(9), Scope::All).expect("a change");
    assert!(second.table.sets().iter().filter(|(set, _)| set.starts_with("aff")).all(|(_, secs)| *secs == 9));
    second.sync(&sticky(0), Scope::All).expect("a change");
    assert!(!second.table.sets().keys().any(|set| set.starts_with("affinity-")));
    assert_eq!(second.ends(POD, "10.96.0.1", 80), ends);
    let mut third = Host::over(config(true, false), second.table);
    third.sync(&sticky(11), Scope::All);
    assert_eq!(third.ends(POD, "10.96.0.1", 80), ends);
}

#[test]
fn of_two_services_with_one_external_address_the_first_has_it_and_the_second_follows() {
    let twin = |number: u8| {
        let mut twin = service(number);
        twin.external_addresses = vec![address("198.51.100.200")];
        Put::PutService(twin)
    };
    let both = vec![
        twin(1),
        twin(2),
        slice(1, vec![endpoint("10.244.1.1", NODE)]),
        slice(2, vec![endpoint("10.244.1.2", NODE)]),
    ];
    let mut host = host(&view(both.clone()));
    assert_eq!(host.ends(OUTSIDE, "198.51.100.200", 80), [arrives("10.244.1.1", 8080, true)]);
    let gone = changed(view(both), vec![Put::DeleteService(ObjectName::new("demo", "svc1"))]);
    host.sync(&gone, Scope::Changed(&only("svc1")));
    assert_eq!(host.ends(OUTSIDE, "198.51.100.200", 80), [arrives("10.244.1.2", 8080, true)]);
}

#[test]
fn node_ports_are_served_where_they_are_selected() {
    let view = view(vec![Put::PutService(service(1)), slice(1, vec![endpoint("10.244.1.1", NODE)])]);
    let selected = crate::classic::NodePortAddresses::Only(vec![address(NODE_ADDRESS)]);
    let mut host = Host::new(Config { node_ports: selected, ..config(true, false) });
    host.sync(&view, Scope::All);
    let second = Node { local: vec![address(NODE_ADDRESS), address("192.0.2.99")] };
    let ends = |dst: &str| {
        let packet = Packet { src: address(OUTSIDE), dst: address(dst), protocol: "tcp", port: 30_001 };
        host.table.ends(&second, packet).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(ends(NODE_ADDRESS), [arrives("10.244.1.1", 8080, true)]);
    assert_eq!(ends("192.0.2.99"), [arrives("192.0.2.99", 30_001, false)]);
}

#[test]
fn a_rule_or_element_that_somebody_took_away_is_missed() {
    let host = host(&table::cluster());
    assert!(host.planner.is_intact(&host.table.observe()));
    let mut flushed = host.table.clone();
    flushed.run("flush map ip kube-proxy service-ips\n");
    assert!(!host.planner.is_intact(&flushed.observe()));
    let mut flushed = host.table.clone();
    flushed.run("flush chain ip kube-proxy masquerading\n");
    assert!(!host.planner.is_intact(&flushed.observe()));
    assert!(!host.planner.is_intact(&Observed::default()));
}

#[test]
fn many_chains_are_filled_before_anything_leads_to_them() {
    let many = |numbers: std::ops::RangeInclusive<u8>| {
        numbers.flat_map(|number| {
            let mut service = service(number);
            service.affinity_secs = u32::from(number % 2) * 60;
            let endpoints =
                (1..=4).map(|node| endpoint(&format!("10.244.{node}.{number}"), "there")).collect();
            [Put::PutService(service), slice(number, endpoints)]
        })
    };
    let ends = |host: &Host, number: u8| host.ends(POD, &format!("10.96.0.{number}"), 80).len();
    for leftover in [Table::default(), host(&table::cluster()).table] {
        let mut host = Host::over(config(true, false), leftover);
        let few = view(many(1..=1).collect());
        host.sync(&few, Scope::All).expect("all of it");
        let before = host.table.elements(fixed::SERVICE_IPS).len();
        let restarted = Host::over(config(true, false), host.table.clone());
        let everything = changed(few, many(1..=240).collect());
        let scripts = host.planner.plan(&everything, Scope::All, host.now_ms);
        let [_declared, filled @ ..] = &scripts.ahead[..] else { panic!("nothing is filled ahead") };
        let chains = |script: &String| script.lines().filter(|line| line.starts_with("flush chain")).count();
        assert!(filled.len() > 1 && filled.iter().all(|script| chains(script) <= AHEAD_MAX));
        for script in &scripts.ahead {
            host.table.run(script);
            assert_eq!(host.table.elements(fixed::SERVICE_IPS).len(), before);
            assert_eq!((ends(&host, 1), host.ends(POD, "10.96.0.2", 80)), (4, vec![End::Dropped]));
        }
        host.table.run(&scripts.change.expect("what leads there"));
        assert!((1..=240).all(|number| ends(&host, number) == 4));
        assert!(host.planner.is_intact(&host.table.observe()));
        // Over what a former process serves, and from nothing, the end is the same, and the former's goes on meanwhile.
        let mut second = restarted;
        let scripts = second.planner.plan(&everything, Scope::All, 0);
        assert!(scripts.ahead.len() > 2);
        for script in scripts.changes() {
            second.table.run(script);
            assert_eq!(ends(&second, 1), 4);
        }
        assert_eq!(second.table.observe(), host.table.observe());
        let mut fresh = Host::new(config(true, false));
        fresh.sync(&everything, Scope::All).expect("all of it");
        assert!((1..=240).all(|number| ends(&fresh, number) == 4));
    }
}
