use fairlead_model::{EndpointPort, ObjectName, Protocol};

use super::*;

/// `address state @node {z zone hint} {n node hint}`, e.g. `1 ready @here za`; the address is the last octet.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let last: u8 = words.next().expect("octet").parse().expect("octet");
    let state = words.next().expect("state");
    let mut endpoint = Endpoint {
        ready: matches!(state, "ready" | "published"),
        serving: matches!(state, "ready" | "draining" | "serving"),
        terminating: matches!(state, "draining" | "dead"),
        ..Endpoint::ready_at(IpAddr::from([10, 244, 0, last]), "")
    };
    for word in words {
        match word.split_at(1) {
            ("@", node) => endpoint.node = node.into(),
            ("z", zone) => endpoint.hint_zones = [zone.into()].into(),
            ("n", node) => endpoint.hint_nodes = [node.into()].into(),
            _ => panic!("unknown word {word}"),
        }
    }
    endpoint
}

fn slice(name: &str, endpoints: &[&str]) -> EndpointSlice {
    EndpointSlice {
        name: ObjectName::new("demo", name),
        service: "echo".into(),
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
        triggered_unix_ns: 0,
    }
}

fn http() -> ServicePort {
    ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 0 }
}

/// Selects on node `here` in a zone, where 10.244.0.9 is a node's address.
fn chosen_in(zone: &str, slices: &[EndpointSlice]) -> Selection {
    let node_addresses = BTreeSet::from([IpAddr::from([10, 244, 0, 9])]);
    let place = Place { node: "here", zone, node_addresses: &node_addresses };
    select(&http(), true, slices.iter(), place)
}

/// `cluster | local | all that serve`, each by last octet, and `!` when no endpoint exists.
fn octets(selection: &Selection) -> String {
    let list = |serving: Vec<&Serving>| {
        let octet = |serving: &&Serving| {
            serving.target.address.to_string().rsplit('.').next().unwrap_or_default().to_owned()
        };
        serving.iter().map(octet).collect::<Vec<_>>().join(" ")
    };
    let lists =
        [selection.cluster().collect(), selection.local().collect(), selection.serving.iter().collect()];
    lists.map(list).join(" | ") + if selection.exists { "" } else { " !" }
}

/// The cases of kube-proxy's `TestCategorizeEndpoints`, less those about feature gates and the annotation that are gone.
/// Ours are computed for both policies, whichever the service has.
#[test]
fn endpoints_are_chosen_by_readiness_policy_and_hints() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str], &str)] = &[
        ("hints choose this zone", "a", &["1 ready za", "2 ready zb", "3 ready zc", "4 ready za"], "1 4 |  | 1 2 3 4"),
        ("no hints, no filter", "a", &["1 ready", "2 ready"], "1 2 |  | 1 2"),
        ("hints do not narrow a local policy", "a", &["1 ready @here za", "2 ready @here zb", "3 ready zc", "4 ready za"], "1 4 | 1 2 | 1 2 3 4"),
        ("a node without a zone uses no hints", "", &["1 ready za"], "1 |  | 1"),
        ("a node without a zone, several zones", "", &["1 ready za", "2 ready zb"], "1 2 |  | 1 2"),
        ("no endpoint for this zone", "b", &["1 ready za"], "1 |  | 1"),
        ("no endpoint for this zone, several others", "a", &["1 ready zb", "2 ready zc"], "1 2 |  | 1 2"),
        ("unready ones of this zone are left out", "a", &["1 ready za", "2 ready zb", "3 ready zc", "4 unready za"], "1 |  | 1 2 3"),
        ("only unready ones in this zone", "a", &["1 unready za", "2 ready zb", "3 ready zc", "4 unready za"], "2 3 |  | 2 3"),
        ("one without a hint switches hints off", "a", &["1 ready za", "2 ready zb", "3 ready", "4 ready za"], "1 2 3 4 |  | 1 2 3 4"),
        ("the hints of unready ones do not matter", "a", &["1 ready za", "2 ready zb", "3 unready"], "1 |  | 1 2"),
        ("several hints each", "c", &["1 ready za zb zc", "2 ready zb zc", "3 ready zb zd", "4 ready zc"], "1 2 4 |  | 1 2 3 4"),
        ("hints and locality in conflict", "a", &["0 ready @here za", "1 ready @here zb", "2 ready @there za", "3 ready @there zb"], "0 2 | 0 1 | 0 1 2 3"),
        ("nobody at all", "", &[], " |  |  !"),
        ("all are remote", "", &["0 ready @there", "1 ready @there"], "0 1 |  | 0 1"),
        ("all are local", "", &["0 ready @here", "1 ready @here"], "0 1 | 0 1 | 0 1"),
        ("some are local", "", &["0 ready @here", "1 ready @there"], "0 1 | 0 | 0 1"),
        ("nobody is ready", "", &["0 unready", "1 unready"], " |  |  !"),
        ("some are ready", "", &["0 unready", "1 ready"], "1 |  | 1"),
        ("all are draining", "", &["0 draining @here", "1 draining @there"], "0 1 | 0 | 0 1"),
        ("all are draining and remote", "", &["0 draining @there", "1 draining @there"], "0 1 |  | 0 1"),
        ("each policy decides by itself", "", &["0 ready @there", "1 unready @here", "2 draining @here", "3 draining @there"], "0 | 2 | 0 2 3"),
        ("a ready one here silences a draining one", "", &["1 ready @here", "2 draining @here"], "1 | 1 | 1 2"),
        ("an endpoint without a node is remote", "", &["1 ready"], "1 |  | 1"),
        ("dead ones are nobody", "", &["1 unready @here", "2 dead @here"], " |  |  !"),
        ("one that serves, neither ready nor terminating, only goes on", "", &["1 serving @here"], " |  | 1 !"),
        ("one that is published though not ready", "", &["1 published @here", "2 draining @here"], "1 | 1 | 1 2"),
        ("draining ones ignore hints", "a", &["1 draining zb", "2 draining za"], "1 2 |  | 1 2"),
        ("node hints before zone hints", "a", &["1 ready za nhere", "2 ready za nthere"], "1 |  | 1 2"),
        ("node hints without a zone", "", &["1 ready nhere", "2 ready nthere"], "1 |  | 1 2"),
        ("without one for this node, the zone", "a", &["1 ready za nx", "2 ready zb ny"], "1 |  | 1 2"),
        ("without one for node or zone, everybody", "a", &["1 ready zb nx", "2 ready zc ny"], "1 2 |  | 1 2"),
        ("node hints must be complete", "a", &["1 ready nhere", "2 ready"], "1 2 |  | 1 2"),
        ("incomplete node hints leave complete zone hints", "a", &["1 ready za nhere", "2 ready za", "3 ready zb"], "1 2 |  | 1 2 3"),
        ("an unready one for this node does not count", "a", &["1 unready za nhere", "2 ready za nx", "3 ready zb ny"], "2 |  | 2 3"),
    ];
    for (name, zone, endpoints, expected) in table {
        assert_eq!(octets(&chosen_in(zone, &[slice("s", endpoints)])), *expected, "{name}");
    }
}

#[test]
fn an_endpoint_is_known_to_be_here_and_to_be_a_node() {
    let selection = chosen_in("", &[slice("s", &["1 ready @here", "2 ready @there", "9 ready @there"])]);
    let facts: Vec<_> = selection.serving.iter().map(|serving| (serving.here, serving.host)).collect();
    assert_eq!(facts, [(true, false), (false, false), (false, true)]);
}

#[test]
fn an_address_in_two_slices_counts_once_and_its_live_entry_wins() {
    let live_first = [slice("a", &["1 ready @here"]), slice("b", &["1 draining @here"])];
    let live_last = [slice("a", &["1 draining @here"]), slice("b", &["1 ready @here"])];
    assert_eq!(octets(&chosen_in("", &live_first)), "1 | 1 | 1");
    assert_eq!(octets(&chosen_in("", &live_last)), "1 | 1 | 1");
}

#[test]
fn ports_are_joined_by_name_and_protocol_and_may_differ_by_slice() {
    let mut other_number = slice("b", &["2 ready"]);
    other_number.ports[0].port = 9090;
    let mut other_name = slice("c", &["3 ready"]);
    other_name.ports[0].name = "metrics".into();
    let mut other_protocol = slice("d", &["4 ready"]);
    other_protocol.ports[0].protocol = Protocol::Udp;
    let mut no_number = slice("e", &["5 ready"]);
    no_number.ports[0].port = 0;
    let slices = [slice("a", &["1 ready"]), other_number, other_name, other_protocol, no_number];
    let selection = chosen_in("", &slices);
    let ports: Vec<_> = selection.serving.iter().map(|serving| serving.target.port).collect();
    assert_eq!((octets(&selection).as_str(), ports), ("1 2 |  | 1 2", vec![8080, 9090]));
}

#[test]
fn endpoints_of_the_other_family_and_addresses_that_are_nobody_s_are_left_out() {
    let mut v6 = slice("v6", &["1 ready"]);
    v6.endpoints[0].address = "fd00:244::1".parse().expect("address");
    let mut bad = slice("bad", &["3 ready", "4 ready", "5 ready", "6 ready"]);
    for (endpoint, address) in
        bad.endpoints.iter_mut().zip(["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.0.1"])
    {
        endpoint.address = address.parse().expect("address");
    }
    let slices = [slice("v4", &["2 ready"]), v6, bad];
    let none = BTreeSet::new();
    let place = Place { node: "here", zone: "", node_addresses: &none };
    let only = |v4| select(&http(), v4, slices.iter(), place).serving;
    assert_eq!(only(true).len(), 1);
    assert_eq!(only(false)[0].target.address, slices[1].endpoints[0].address);
}
