//! How the zone follows the cluster: a service at a time, as a whole, old copies untouched.

use crate::support::{ask, cluster_ip, config, external, headless, namespace, slice};
use fairlead_model::{Change, ObjectName, Revision, Update, View};
use fairlead_zone::Zone;

/// Applies changes to the view and what they touched to a copy of the zone.
fn step(zone: &Zone, view: &mut View, snapshot: bool, changes: Vec<Change>) -> Zone {
    let sequence = view.revision().sequence + 1;
    let touched = view.apply(Update { revision: Revision { epoch: 1, sequence }, snapshot, changes });
    let mut next = zone.clone();
    next.apply(view, &touched, u32::try_from(sequence).unwrap());
    next
}

#[test]
fn endpoints_come_and_go_and_old_copies_stay() {
    let mut view = View::default();
    let put = |service| Change::PutService(service);
    let name = "db.demo.svc.cluster.local A";
    let start =
        vec![namespace("demo"), put(headless("db")), slice("db-1", "db", &[], &["10.244.1.1", "10.244.1.2"])];
    let first = step(&Zone::new(config()), &mut view, true, start);
    let second =
        step(&first, &mut view, false, vec![slice("db-1", "db", &[], &["10.244.1.2", "10.244.1.3"])]);
    assert_eq!(
        ask(&first, name),
        "db.demo.svc.cluster.local A 10.244.1.1 db.demo.svc.cluster.local A 10.244.1.2"
    );
    assert_eq!(
        ask(&second, name),
        "db.demo.svc.cluster.local A 10.244.1.2 db.demo.svc.cluster.local A 10.244.1.3"
    );
    assert_eq!(
        ask(&first, "1.1.244.10.in-addr.arpa PTR").split(' ').next_back(),
        Some("10-244-1-1.db.demo.svc.cluster.local")
    );
    assert_eq!(ask(&second, "1.1.244.10.in-addr.arpa PTR"), "NXDOMAIN SOA 244.10.in-addr.arpa");
    assert_eq!(ask(&second, "cluster.local SOA"), "cluster.local SOA 2");

    let gone = step(&second, &mut view, false, vec![Change::DeleteSlice(ObjectName::new("demo", "db-1"))]);
    assert_eq!(ask(&gone, name), "NXDOMAIN SOA cluster.local");
}

#[test]
fn a_service_may_become_an_alias_and_back() {
    let mut view = View::default();
    let ip = || Change::PutService(cluster_ip("x", &["10.96.0.9"], &[]));
    let zone = step(&Zone::new(config()), &mut view, true, vec![namespace("demo"), ip()]);
    let alias = step(&zone, &mut view, false, vec![Change::PutService(external("x", "a.example"))]);
    assert_eq!(ask(&alias, "x.demo.svc.cluster.local CNAME"), "x.demo.svc.cluster.local CNAME a.example");
    assert_eq!(ask(&alias, "9.0.96.10.in-addr.arpa PTR"), "NXDOMAIN SOA 96.10.in-addr.arpa");
    let other = step(&alias, &mut view, false, vec![Change::PutService(external("x", "b.example"))]);
    assert_eq!(ask(&other, "x.demo.svc.cluster.local CNAME"), "x.demo.svc.cluster.local CNAME b.example");
    let back = step(&other, &mut view, false, vec![ip()]);
    assert_eq!(ask(&back, "x.demo.svc.cluster.local A"), "x.demo.svc.cluster.local A 10.96.0.9");
}

#[test]
fn publishing_unready_endpoints_is_switched_live() {
    let mut view = View::default();
    let start = vec![
        namespace("demo"),
        Change::PutService(headless("db")),
        slice("s", "db", &[], &["10.244.1.1 a unready"]),
    ];
    let zone = step(&Zone::new(config()), &mut view, true, start);
    assert_eq!(ask(&zone, "db.demo.svc.cluster.local A"), "NXDOMAIN SOA cluster.local");
    let mut tolerant = headless("db");
    tolerant.publish_not_ready = true;
    let zone = step(&zone, &mut view, false, vec![Change::PutService(tolerant)]);
    assert_eq!(ask(&zone, "db.demo.svc.cluster.local A"), "db.demo.svc.cluster.local A 10.244.1.1");
}

#[test]
fn a_snapshot_replaces_everything() {
    let mut view = View::default();
    let service = |name| Change::PutService(cluster_ip(name, &["10.96.0.9"], &[]));
    let zone =
        step(&Zone::new(config()), &mut view, true, vec![namespace("old"), namespace("demo"), service("a")]);
    let zone = step(&zone, &mut view, true, vec![namespace("demo"), service("b")]);
    assert_eq!(ask(&zone, "a.demo.svc.cluster.local A"), "NXDOMAIN SOA cluster.local");
    assert_eq!(ask(&zone, "b.demo.svc.cluster.local A"), "b.demo.svc.cluster.local A 10.96.0.9");
    assert_eq!(
        ask(&zone, "9.0.96.10.in-addr.arpa PTR"),
        "9.0.96.10.in-addr.arpa PTR b.demo.svc.cluster.local"
    );
    assert_eq!(ask(&zone, "old.svc.cluster.local A"), "NXDOMAIN SOA cluster.local");
}

#[test]
fn updates_end_where_a_fresh_build_does() {
    let mut view = View::default();
    let mut zone = Zone::new(config());
    let names = ["a", "b", "c"];
    for round in 0u8..60 {
        let name = names[usize::from(round) % 3];
        let address = format!("10.244.1.{}", round % 7);
        let slice_name = format!("s{}", round % 5);
        let change = match round % 4 {
            0 => Change::PutService(headless(name)),
            1 | 2 => slice(&slice_name, name, &[], &[&address]),
            _ if round % 8 == 7 => Change::DeleteService(ObjectName::new("demo", name)),
            _ => Change::DeleteSlice(ObjectName::new("demo", slice_name)),
        };
        zone = step(&zone, &mut view, round == 0, vec![change, namespace("demo")]);
        let fresh = Zone::build(config(), &view, u32::from(round) + 1);
        for name in names {
            let question = format!("{name}.demo.svc.cluster.local A");
            assert_eq!(ask(&zone, &question), ask(&fresh, &question), "round {round}");
        }
        for host in 0..7 {
            let question = format!("{host}.1.244.10.in-addr.arpa PTR");
            let sorted = |zone| {
                let text = ask(zone, &question);
                let mut words: Vec<String> = text.split(' ').map(String::from).collect();
                words.sort();
                words
            };
            assert_eq!(sorted(&zone), sorted(&fresh), "round {round}");
        }
    }
}
