//! The proxy modes side by side: one table of what clients meet, asked of each mode with real sockets.
//!
//! Needs root, iptables, nftables and conntrack. Where a mode differs by its nature the row says so; the guide on proxy
//! modes explains it.

use std::{io::Write as _, net::SocketAddr};

use crate::{
    behaviour::{ROWS, Row, SPECIAL},
    cluster::view,
    lab::{Lab, PORT, UdpClient},
    mode::Mode,
    rules::Programmed,
};

#[path = "node_modes/behaviour.rs"]
mod behaviour;
#[path = "node_modes/cluster.rs"]
mod cluster;
#[path = "node_modes/lab.rs"]
mod lab;
#[path = "node_modes/mode.rs"]
mod mode;
#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod node;
#[path = "node_modes/rules.rs"]
mod rules;

#[test]
fn programs_behave_as_the_table_says() {
    behaves(Mode::Ebpf);
}

#[test]
fn programs_on_links_alone_behave_as_the_table_says() {
    behaves(Mode::EbpfLinks);
}

#[test]
fn programs_that_masquerade_behave_as_the_table_says() {
    behaves(Mode::EbpfMasquerade);
}

#[test]
fn iptables_behaves_as_the_table_says() {
    behaves(Mode::Iptables);
}

#[test]
fn nftables_behaves_as_the_table_says() {
    behaves(Mode::Nftables);
}

#[test]
fn ipvs_behaves_as_the_table_says() {
    match mode::ipvs_is_missing() {
        None => behaves(Mode::Ipvs),
        // Not by `eprintln`, which a test that passes does not show.
        Some(why) => drop(writeln!(std::io::stderr(), "IPVS is not tried: {why}")),
    }
}

fn behaves(mode: Mode) {
    let mut lab = Lab::new(mode);
    let view = view(1, &cluster::all(&lab));
    lab.sync(&view);
    if mode.programs().is_none() {
        Programmed::new(mode, &lab).sync(&view);
    }
    let rows = ROWS.as_flattened().iter().chain(SPECIAL.as_flattened());
    let wrong: Vec<String> = rows.filter_map(|row| difference(&lab, mode, row)).collect();
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn difference(lab: &Lab, mode: Mode, row: &Row) -> Option<String> {
    let expected = row.expected(mode);
    let found = lab.ask(row, &expected);
    (found != expected).then(|| format!("{row:?}\n    expected {expected:?}\n    found    {found:?}"))
}

#[test]
fn an_endpoint_that_leaves_takes_its_udp_flows_along() {
    for mode in Mode::with_rules() {
        let lab = Lab::new(mode);
        let mut programmed = Programmed::new(mode, &lab);
        programmed.sync(&view(1, &cluster::udp(&lab, &["near"])));
        let client = lab.udp_client();
        assert_eq!(client.ask(), Some("near".to_owned()), "{mode:?}");
        programmed.sync(&view(2, &cluster::udp(&lab, &["far"])));
        // The same socket: without the removal conntrack would send it to the old endpoint.
        assert_eq!(client.ask(), Some("far".to_owned()), "{mode:?}");
    }
}

#[test]
fn an_endpoint_that_ipvs_does_not_take_keeps_nothing_else_back() {
    if let Some(why) = mode::ipvs_is_missing() {
        let _told = writeln!(std::io::stderr(), "IPVS is not tried: {why}");
        return;
    }
    let lab = Lab::new(Mode::Ipvs);
    let mut changes = cluster::udp(&lab, &["near"]);
    changes.push(cluster::everybody_of_the_link());
    let mut programmed = Programmed::new(Mode::Ipvs, &lab);
    programmed.sync(&view(1, &changes));
    assert!(!programmed.refused.is_empty());
    for refused in &programmed.refused {
        let named = refused.starts_with("the endpoint 172.29.0.255:8080 of UDP ");
        assert!(named && refused.contains("Invalid argument"), "{refused}");
    }
    assert!(programmed.is_intact());
    for _ in 0..4 {
        assert_eq!(lab.udp_client().ask(), Some("near".to_owned()));
    }
}

#[test]
fn a_pod_that_is_asked_itself_answers_for_itself() {
    for mode in Mode::all() {
        let mut lab = Lab::new(mode);
        let view = view(1, &cluster::udp(&lab, &["near"]));
        lab.sync(&view);
        if mode.programs().is_none() {
            Programmed::new(mode, &lab).sync(&view);
        }
        let (client, near) = (lab.udp_client(), Some("near".to_owned()));
        assert_eq!(client.ask(), near, "{mode:?}, by the service");
        // The same port asks the endpoint that the service led to. IPVS answers in the service's name, for five minutes.
        let own = lab.pod("near").addresses.iter().find(|address| address.is_ipv4()).expect("an address");
        let (own, service) = (SocketAddr::new(*own, PORT), UdpClient::service());
        client.turn_to(own);
        assert_eq!(client.ask(), near.clone().filter(|_| mode != Mode::Ipvs), "{mode:?}, itself");
        client.turn_to(service);
        assert_eq!(client.ask(), near, "{mode:?}, by the service again");
        let client = lab.unconnected_client();
        for asked in [service, own, own, service] {
            let answerer = if mode == Mode::Ipvs { service } else { asked };
            assert_eq!(client.answerer(asked), Some(answerer), "{mode:?}");
        }
    }
}

#[test]
fn a_mode_replaces_another_without_refusing_anybody_and_leaves_nothing_of_it() {
    let modes = Mode::with_rules();
    let pairs = modes.iter().flat_map(|from| modes.iter().map(move |to| (*from, *to)));
    // What two modes share, the agent keeps; its own test changes between all of them.
    for (from, to) in pairs.filter(|(from, to)| from.has_iptables() != to.has_iptables()) {
        let lab = Lab::new(from);
        let view = view(1, &cluster::all(&lab));
        let mut old = Programmed::new(from, &lab);
        let clean = old.traces();
        old.sync(&view);
        let steady = lab.steady_client();
        let mut new = Programmed::new(to, &lab);
        new.sync(&view);
        old.remove();
        steady.more(50);
        let (asked, failed) = steady.stop();
        assert!(asked > 50 && failed.is_empty(), "{from:?} to {to:?}: {failed:?} of {asked}");
        assert!(old.traces_of(from).is_empty(), "{from:?} to {to:?}: {:?}", old.traces_of(from));
        new.remove();
        assert_eq!(new.traces(), clean, "{from:?} to {to:?}");
    }
}

#[test]
fn rules_that_somebody_removes_come_back_and_rules_of_others_stay() {
    for mode in Mode::with_rules() {
        let lab = Lab::new(mode);
        let view = view(1, &cluster::all(&lab));
        let mut programmed = Programmed::new(mode, &lab);
        lab.add_foreign_rules();
        let foreign = programmed.traces();
        programmed.sync(&view);
        assert!(programmed.is_intact(), "{mode:?}");
        programmed.vandalise();
        assert!(!programmed.is_intact(), "{mode:?}");
        programmed.repair(&view);
        assert!(programmed.is_intact(), "{mode:?}");
        let row = &ROWS[0][0];
        assert_eq!(difference(&lab, mode, row), None);
        programmed.remove();
        assert_eq!(programmed.traces(), foreign);
    }
}
