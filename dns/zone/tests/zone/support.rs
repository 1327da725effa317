//! A small cluster in few lines, questions as text, answers as text.

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, ObjectName, Prefix, Protocol, Revision, Service,
    ServiceKind, ServicePort, Update, View,
};
use fairlead_zone::{
    Answer, Class, Name, Pods, Question, Rcode, RecordData, RecordType, Zone, ZoneConfig, reverse_zones,
};

pub(crate) fn config() -> ZoneConfig {
    let network = |address: &str, length| Prefix { address: address.parse().unwrap(), length };
    let networks = [
        network("10.96.0.0", 16),
        network("fd00:96::", 112),
        network("10.244.0.0", 16),
        network("172.29.0.0", 16),
        network("fd00:244::", 56),
    ];
    ZoneConfig {
        reverse_zones: networks.into_iter().flat_map(reverse_zones).collect(),
        addresses: vec!["172.29.0.11".parse().unwrap()],
        pods: Pods::Insecure,
        ..ZoneConfig::new(Name::parse("cluster.local").unwrap())
    }
}

/// The cluster that the tables ask about; its serial is 7.
pub(crate) fn cluster() -> Zone {
    let mut changes = vec![namespace("demo"), namespace("other"), namespace("kube-system")];
    changes.extend(services());
    changes.extend(slices());
    Zone::build(config(), &view(&changes), 7)
}

pub(crate) fn unsynced() -> Zone {
    Zone::new(config())
}

pub(crate) fn view(changes: &[Change]) -> View {
    let mut view = View::default();
    let revision = Revision { epoch: 1, sequence: 1 };
    view.apply(Update { revision, snapshot: true, changes: changes.to_vec() });
    view
}

pub(crate) fn namespace(name: &str) -> Change {
    Change::PutNamespace(name.into())
}

fn services() -> Vec<Change> {
    let mut dns = cluster_ip("kube-dns", &["10.96.0.10"], &["dns/UDP/53"]);
    dns.name.namespace = "kube-system".into();
    let services = vec![
        dns,
        cluster_ip("echo", &["10.96.0.20", "fd00:96::20"], &["http/TCP/80", "dns/UDP/53"]),
        cluster_ip("v4only", &["10.96.0.21"], &["/TCP/80"]),
        cluster_ip("front", &["10.96.0.22"], &["http/TCP/80"]),
        headless("behind"),
        headless("db"),
        headless("web"),
        headless("alias"),
        headless("unready"),
        headless("empty"),
        headless("portless"),
        headless("hosts"),
        Service { publish_not_ready: true, ..headless("early") },
        external("ext", "www.example.com"),
        external("inner", "echo.demo.svc.cluster.local"),
        external("dead", "nosuch.demo.svc.cluster.local"),
        external("loop-a", "loop-b.demo.svc.cluster.local"),
        external("loop-b", "loop-a.demo.svc.cluster.local"),
        external("self", "self.demo.svc.cluster.local"),
    ];
    // link-0 leads over link-1 and so on to echo, eleven links later.
    let links = (0..=10).map(|link| match link {
        10 => external("link-10", "echo.demo.svc.cluster.local"),
        _ => external(&format!("link-{link}"), &format!("link-{}.demo.svc.cluster.local", link + 1)),
    });
    services.into_iter().chain(links).map(Change::PutService).collect()
}

fn slices() -> Vec<Change> {
    let sql = ["sql/TCP/5432"];
    vec![
        slice("echo-1", "echo", &["http/TCP/8080"], &["10.244.1.9"]),
        slice("behind-1", "behind", &[], &["10.96.0.22"]),
        slice(
            "db-1",
            "db",
            &sql,
            &["10.244.1.5 db-0", "10.244.1.6 twin", "10.244.2.5 twin", "10.244.1.7 db-2 unready"],
        ),
        slice("db-2", "db", &sql, &["fd00:244:0:1::5 db-0"]),
        slice("web-1", "web", &["http/TCP/80"], &["10.244.1.30"]),
        slice("web-2", "web", &["http/TCP/80"], &["fd00:244::30", "fd00:244::"]),
        slice("alias-1", "alias", &[], &["10.244.1.30"]),
        slice("unready-1", "unready", &[], &["10.244.1.35 a unready"]),
        slice("portless-1", "portless", &[], &["10.244.1.50"]),
        slice("hosts-1", "hosts", &[], &["172.29.0.11"]),
        slice("early-1", "early", &[], &["10.244.1.40 a unready"]),
    ]
}

pub(crate) fn cluster_ip(name: &str, addresses: &[&str], ports: &[&str]) -> Service {
    Service {
        name: ObjectName::new("demo", name),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ports: ports
            .iter()
            .map(|port| {
                let EndpointPort { name, protocol, port } = parse_port(port);
                ServicePort { name, protocol, port, node_port: 0 }
            })
            .collect(),
        ..Service::default()
    }
}

pub(crate) fn headless(name: &str) -> Service {
    Service { name: ObjectName::new("demo", name), kind: ServiceKind::Headless, ..Service::default() }
}

pub(crate) fn external(name: &str, target: &str) -> Service {
    Service {
        name: ObjectName::new("demo", name),
        kind: ServiceKind::ExternalName(target.into()),
        ..Service::default()
    }
}

/// A slice; ports as `name/PROTOCOL/port`, endpoints as `address [hostname [unready]]`.
pub(crate) fn slice(name: &str, service: &str, ports: &[&str], endpoints: &[&str]) -> Change {
    let endpoint = |text: &&str| {
        let mut words = text.split(' ');
        let address = words.next().unwrap().parse().unwrap();
        let hostname = words.next().unwrap_or_default().into();
        let ready = words.next().is_none();
        Endpoint { ready, serving: ready, hostname, ..Endpoint::ready_at(address, "") }
    };
    Change::PutSlice(EndpointSlice {
        name: ObjectName::new("demo", name),
        service: service.into(),
        ports: ports.iter().map(|port| parse_port(port)).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        triggered_unix_ns: 0,
    })
}

fn parse_port(text: &str) -> EndpointPort {
    let [name, protocol, port] = text.split('/').collect::<Vec<_>>()[..] else { panic!("port {text}") };
    let protocol = if protocol == "UDP" { Protocol::Udp } else { Protocol::Tcp };
    EndpointPort { name: name.into(), protocol, port: port.parse().unwrap() }
}

/// A question from `name TYPE`.
pub(crate) fn question(text: &str) -> Question {
    let (name, rtype) = text.split_once(' ').unwrap();
    let rtype = match rtype {
        "A" => RecordType::A,
        "AAAA" => RecordType::AAAA,
        "AXFR" => RecordType::AXFR,
        "CNAME" => RecordType::CNAME,
        "IXFR" => RecordType::IXFR,
        "MX" => RecordType::MX,
        "NS" => RecordType::NS,
        "PTR" => RecordType::PTR,
        "SOA" => RecordType::SOA,
        "SRV" => RecordType::SRV,
        "TXT" => RecordType::TXT,
        other => RecordType(other.strip_prefix("TYPE").unwrap().parse().unwrap()),
    };
    Question { name: Name::parse(name).unwrap(), rtype, class: Class::IN }
}

pub(crate) fn ask(zone: &Zone, text: &str) -> String {
    zone.answer(&question(text)).map_or_else(|| "not ours".into(), |answer| show(&answer))
}

/// An answer in words: the rcode unless records say enough, records, `SOA` with its owner, `+` before additional ones.
pub(crate) fn show(answer: &Answer) -> String {
    let mut words = Vec::new();
    match answer.rcode {
        Rcode::NO_ERROR if answer.answers.is_empty() => words.push("NOERROR".into()),
        Rcode::NO_ERROR => {}
        Rcode::NX_DOMAIN => words.push("NXDOMAIN".into()),
        Rcode::SERV_FAIL => words.push("SERVFAIL".into()),
        Rcode::REFUSED => words.push("REFUSED".into()),
        other => words.push(format!("{other:?}")),
    }
    if !answer.authoritative {
        words.push("not authoritative".into());
    }
    let text = |name: &Name| name.to_string().trim_end_matches('.').to_owned();
    for record in &answer.answers {
        words.push(format!("{} {}", text(&record.name), value(&record.data)));
    }
    words.extend(answer.authority.iter().map(|record| format!("SOA {}", text(&record.name))));
    for record in &answer.additional {
        words.push(format!("+ {} {}", text(&record.name), value(&record.data)));
    }
    words.extend(answer.chase.iter().map(|name| format!("chase {}", text(name))));
    words.join(" ")
}

fn value(data: &RecordData) -> String {
    let text = |name: &Name| name.to_string().trim_end_matches('.').to_owned();
    match data {
        RecordData::A(address) => format!("A {address}"),
        RecordData::Aaaa(address) => format!("AAAA {address}"),
        RecordData::Cname(name) => format!("CNAME {}", text(name)),
        RecordData::Ns(name) => format!("NS {}", text(name)),
        RecordData::Ptr(name) => format!("PTR {}", text(name)),
        RecordData::Srv { priority, weight, port, target } => {
            format!("SRV {priority} {weight} {port} {}", text(target))
        }
        RecordData::Txt(value) => format!("TXT {}", String::from_utf8_lossy(value)),
        RecordData::Soa(soa) => format!("SOA {}", soa.serial),
        RecordData::Opaque { rtype, .. } => format!("TYPE{}", rtype.0),
    }
}
