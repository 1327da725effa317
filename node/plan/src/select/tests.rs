use fairlead_model::{EndpointPort, ObjectName, Protocol};

use super::*;

/// `address state @node [zone hint] {node hint}`, e.g. `1 ready @here`; the address is the last octet.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let last: u8 = words.next().expect("octet").parse().expect("octet");
    let state = words.next().expect("state");
    let mut endpoint = Endpoint {
        address: IpAddr::from([10, 244, 0, last]),
        ready: state == "ready",
        serving: matches!(state, "ready" | "draining"),
        terminating: matches!(state, "draining" | "dead"),
        node: String::new(),
        zone: String::new(),
        hostname: String::new(),
        pod: String::new(),
        hint_nodes: Vec::new(),
        hint_zones: Vec::new(),
    };
    for word in words {
        match word.split_at(1) {
            ("@", node) => endpoint.node = node.into(),
            ("z", zone) => endpoint.hint_zones.push(zone.into()),
            ("n", node) => endpoint.hint_nodes.push(node.into()),
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

/// Selects on node `here` in zone `a` and writes the octets as `local | remote | terminating`.
fn chosen(policy: TrafficPolicy, slices: &[EndpointSlice]) -> String {
    let service = Service { internal_policy: policy, ..Service::default() };
    let place = Place { node: "here", zone: "a" };
    octets(&select(&service, &http(), true, slices.iter(), place))
}

fn octets(selection: &Selection) -> String {
    let list = |targets: &[Target]| {
        let octet =
            |target: &Target| target.address.to_string().rsplit('.').next().unwrap_or_default().to_owned();
        targets.iter().map(octet).collect::<Vec<_>>().join(" ")
    };
    [list(&selection.local), list(&selection.remote), list(&selection.terminating)].join(" | ")
}

#[test]
fn endpoints_are_chosen_by_readiness_policy_and_hints() {
    use TrafficPolicy::{Cluster, Local};
    #[rustfmt::skip]
    let table: &[(&str, TrafficPolicy, &[&str], &str)] = &[
        ("ready ones, local first", Cluster, &["1 ready @there", "2 ready @here"], "2 | 1 | "),
        ("an endpoint without a node is remote", Cluster, &["1 ready"], " | 1 | "),
        ("not ready ones are not used", Cluster, &["1 ready @here", "2 unready @here"], "1 |  | "),
        ("draining ones serve what they have", Cluster, &["1 ready @here", "2 draining @here"], "1 |  | 2"),
        ("draining ones serve when nobody is ready", Cluster, &["1 draining @there", "2 draining @here", "3 dead @here"], "2 | 1 | "),
        ("nobody at all", Cluster, &["1 unready @here", "2 dead @there"], " |  | "),
        ("local policy keeps the rest for counting", Local, &["1 ready @there", "2 ready @here"], "2 | 1 | "),
        ("local policy prefers its draining one", Local, &["1 ready @there", "2 draining @here"], "2 | 1 | "),
        ("cluster policy prefers the ready one", Cluster, &["1 ready @there", "2 draining @here"], " | 1 | 2"),
        ("local policy has its ready one", Local, &["1 ready @here", "2 draining @here"], "1 |  | 2"),
        ("zone hints choose this zone", Cluster, &["1 ready za", "2 ready zb", "3 ready za"], " | 1 3 | "),
        ("one without a hint switches hints off", Cluster, &["1 ready za", "2 ready zb", "3 ready"], " | 1 2 3 | "),
        ("hints of unready ones do not matter", Cluster, &["1 ready za", "2 ready zb", "3 unready"], " | 1 | "),
        ("no endpoint for this zone", Cluster, &["1 ready zb", "2 ready zc"], " | 1 2 | "),
        ("node hints before zone hints", Cluster, &["1 ready za nhere", "2 ready za nthere"], " | 1 | "),
        ("without one for this node, the zone", Cluster, &["1 ready za nx", "2 ready zb ny"], " | 1 | "),
        ("node hints must be complete", Cluster, &["1 ready nhere", "2 ready"], " | 1 2 | "),
        ("hints do not narrow a local policy", Local, &["1 ready @here zb", "2 ready @here za"], "1 2 |  | "),
        ("draining ones ignore hints", Cluster, &["1 draining zb", "2 draining za"], " | 1 2 | "),
    ];
    for (name, policy, endpoints, expected) in table {
        assert_eq!(chosen(*policy, &[slice("s", endpoints)]), *expected, "{name}");
    }
}

#[test]
fn zone_hints_are_ignored_on_a_node_without_a_zone() {
    let slices = [slice("s", &["1 ready za", "2 ready zb"])];
    let place = Place { node: "here", zone: "" };
    let selection = select(&Service::default(), &http(), true, slices.iter(), place);
    assert_eq!(octets(&selection), " | 1 2 | ");
}

#[test]
fn an_address_in_two_slices_counts_once_and_its_live_entry_wins() {
    let live_first = [slice("a", &["1 ready @here"]), slice("b", &["1 draining @here"])];
    let live_last = [slice("a", &["1 draining @here"]), slice("b", &["1 ready @here"])];
    assert_eq!(chosen(TrafficPolicy::Cluster, &live_first), "1 |  | ");
    assert_eq!(chosen(TrafficPolicy::Cluster, &live_last), "1 |  | ");
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
    let selection =
        select(&Service::default(), &http(), true, slices.iter(), Place { node: "here", zone: "" });
    let ports: Vec<_> = selection.targets().map(|target| target.port).collect();
    assert_eq!((octets(&selection).as_str(), ports), (" | 1 2 | ", vec![8080, 9090]));
}

#[test]
fn endpoints_of_the_other_family_are_left_out() {
    let mut v6 = slice("v6", &["1 ready"]);
    v6.endpoints[0].address = "fd00:244::1".parse().expect("address");
    let slices = [slice("v4", &["2 ready"]), v6];
    let place = Place { node: "here", zone: "" };
    let only = |v4| select(&Service::default(), &http(), v4, slices.iter(), place).remote;
    assert_eq!(only(true).len(), 1);
    assert_eq!(only(false)[0].address, slices[1].endpoints[0].address);
}
