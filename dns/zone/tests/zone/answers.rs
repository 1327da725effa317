//! The rules of the specification as questions to one small cluster, and the answers they must get.

use fairlead_zone::{Class, Name, Question, Rcode, RecordType, Zone};
use proptest::prelude::*;

use crate::support::{self, ask, cluster, config, question, show, unsynced};

/// A rule in words, a question, and the answer as [`show`] writes it.
pub(crate) type Row<'a> = (&'a str, &'a str, &'a str);

pub(crate) fn check(zone: &Zone, rows: &[Row<'_>]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(rule, question, expected)| {
            let answer = ask(zone, question);
            (answer != *expected)
                .then(|| format!("{rule}\n  {question}\n  want {expected}\n  got  {answer}\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} rows\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn services_with_cluster_addresses() {
    check(
        &cluster(),
        &[
            (
                "A of a service is its IPv4 cluster address",
                "echo.demo.svc.cluster.local A",
                "echo.demo.svc.cluster.local A 10.96.0.20",
            ),
            (
                "AAAA of a dual-stack service is its IPv6 cluster address",
                "echo.demo.svc.cluster.local AAAA",
                "echo.demo.svc.cluster.local AAAA fd00:96::20",
            ),
            (
                "names compare without case, and answers keep the case of the question",
                "eChO.Demo.SVC.cluster.LOCAL A",
                "eChO.Demo.SVC.cluster.LOCAL A 10.96.0.20",
            ),
            (
                "AAAA of an IPv4-only service is NODATA, never NXDOMAIN",
                "v4only.demo.svc.cluster.local AAAA",
                "NOERROR SOA cluster.local",
            ),
            (
                "a service without endpoints still has its address",
                "v4only.demo.svc.cluster.local A",
                "v4only.demo.svc.cluster.local A 10.96.0.21",
            ),
            (
                "another type of an existing name is NODATA",
                "echo.demo.svc.cluster.local TXT",
                "NOERROR SOA cluster.local",
            ),
            (
                "HTTPS of an existing name is NODATA",
                "echo.demo.svc.cluster.local TYPE65",
                "NOERROR SOA cluster.local",
            ),
            (
                "an unknown service is NXDOMAIN with the SOA",
                "nosuch.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "an unknown service is NXDOMAIN for every type",
                "nosuch.demo.svc.cluster.local MX",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a service is in its own namespace only",
                "echo.other.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "the SOA of a denial is named in the case of the question",
                "nosuch.demo.svc.Cluster.Local A",
                "NXDOMAIN SOA Cluster.Local",
            ),
        ],
    );
}

#[test]
fn ports_of_services() {
    check(
        &cluster(),
        &[
            (
                "SRV of a named port: the service's port, host is the service, its addresses are additional",
                "_http._tcp.echo.demo.svc.cluster.local SRV",
                "_http._tcp.echo.demo.svc.cluster.local SRV 0 50 80 echo.demo.svc.cluster.local \
             + echo.demo.svc.cluster.local A 10.96.0.20 + echo.demo.svc.cluster.local AAAA fd00:96::20",
            ),
            (
                "hosts have the service's own case and the zone in the case of the question",
                "_HTTP._TCP.ECHO.demo.svc.CLUSTER.local SRV",
                "_HTTP._TCP.ECHO.demo.svc.CLUSTER.local SRV 0 50 80 echo.demo.svc.CLUSTER.local \
             + echo.demo.svc.CLUSTER.local A 10.96.0.20 + echo.demo.svc.CLUSTER.local AAAA fd00:96::20",
            ),
            (
                "SRV of the bare service lists every port",
                "echo.demo.svc.cluster.local SRV",
                "echo.demo.svc.cluster.local SRV 0 25 80 echo.demo.svc.cluster.local \
             echo.demo.svc.cluster.local SRV 0 25 53 echo.demo.svc.cluster.local \
             + echo.demo.svc.cluster.local A 10.96.0.20 + echo.demo.svc.cluster.local AAAA fd00:96::20",
            ),
            (
                "A of a port name is the service's address",
                "_http._tcp.echo.demo.svc.cluster.local A",
                "_http._tcp.echo.demo.svc.cluster.local A 10.96.0.20",
            ),
            (
                "a port is found under its own protocol only",
                "_http._udp.echo.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a protocol with ports exists but is empty",
                "_tcp.echo.demo.svc.cluster.local SRV",
                "NOERROR SOA cluster.local",
            ),
            (
                "a protocol without ports does not exist",
                "_sctp.echo.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a port without a name has no SRV name",
                "_._tcp.v4only.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "an unknown port is NXDOMAIN",
                "_nosuch._tcp.echo.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a port label without underscore is no port",
                "http.tcp.echo.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "more labels than any name has is NXDOMAIN",
                "x._http._tcp.echo.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn headless_services() {
    check(
        &cluster(),
        &[
            (
                "one A per ready IPv4 endpoint, not the unready one",
                "db.demo.svc.cluster.local A",
                "db.demo.svc.cluster.local A 10.244.1.5 db.demo.svc.cluster.local A 10.244.1.6 \
             db.demo.svc.cluster.local A 10.244.2.5",
            ),
            (
                "one AAAA per ready IPv6 endpoint",
                "db.demo.svc.cluster.local AAAA",
                "db.demo.svc.cluster.local AAAA fd00:244:0:1::5",
            ),
            (
                "no ready endpoint at all is NXDOMAIN",
                "unready.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "no endpoint at all is NXDOMAIN",
                "empty.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a service that publishes unready endpoints shows them",
                "early.demo.svc.cluster.local A",
                "early.demo.svc.cluster.local A 10.244.1.40",
            ),
            (
                "an endpoint has its hostname below the service",
                "db-0.db.demo.svc.cluster.local A",
                "db-0.db.demo.svc.cluster.local A 10.244.1.5",
            ),
            (
                "hostnames compare without case",
                "DB-0.db.demo.svc.cluster.local AAAA",
                "DB-0.db.demo.svc.cluster.local AAAA fd00:244:0:1::5",
            ),
            (
                "endpoints that share a hostname are all given",
                "twin.db.demo.svc.cluster.local A",
                "twin.db.demo.svc.cluster.local A 10.244.1.6 twin.db.demo.svc.cluster.local A 10.244.2.5",
            ),
            (
                "the other family of an endpoint is NODATA",
                "twin.db.demo.svc.cluster.local AAAA",
                "NOERROR SOA cluster.local",
            ),
            (
                "an endpoint without hostname is named after its address",
                "10-244-1-30.web.demo.svc.cluster.local A",
                "10-244-1-30.web.demo.svc.cluster.local A 10.244.1.30",
            ),
            (
                "an endpoint without hostname is named after its IPv6 address",
                "fd00-244--30.web.demo.svc.cluster.local AAAA",
                "fd00-244--30.web.demo.svc.cluster.local AAAA fd00:244::30",
            ),
            (
                "an IPv6 address that ends in zeros gets one as its last group",
                "fd00-244--0.web.demo.svc.cluster.local AAAA",
                "fd00-244--0.web.demo.svc.cluster.local AAAA fd00:244::",
            ),
            (
                "an endpoint with a hostname is not named after its address",
                "10-244-1-5.db.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "an unknown endpoint under an existing service is NXDOMAIN",
                "db-9.db.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "an unready endpoint has no name",
                "db-2.db.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "SRV: endpoints times ports, same host and port once, no address lost",
                "_sql._tcp.db.demo.svc.cluster.local SRV",
                "_sql._tcp.db.demo.svc.cluster.local SRV 0 25 5432 db-0.db.demo.svc.cluster.local \
             _sql._tcp.db.demo.svc.cluster.local SRV 0 25 5432 twin.db.demo.svc.cluster.local \
             + db-0.db.demo.svc.cluster.local A 10.244.1.5 + twin.db.demo.svc.cluster.local A 10.244.1.6 \
             + twin.db.demo.svc.cluster.local A 10.244.2.5 + db-0.db.demo.svc.cluster.local AAAA fd00:244:0:1::5",
            ),
            (
                "SRV of one endpoint",
                "db-0.db.demo.svc.cluster.local SRV",
                "db-0.db.demo.svc.cluster.local SRV 0 50 5432 db-0.db.demo.svc.cluster.local \
             + db-0.db.demo.svc.cluster.local A 10.244.1.5 + db-0.db.demo.svc.cluster.local AAAA fd00:244:0:1::5",
            ),
            (
                "an endpoint without ports has an address",
                "portless.demo.svc.cluster.local A",
                "portless.demo.svc.cluster.local A 10.244.1.50",
            ),
            (
                "an endpoint without ports has no SRV",
                "portless.demo.svc.cluster.local SRV",
                "NOERROR SOA cluster.local",
            ),
            (
                "endpoints have names under services with a cluster address, too",
                "10-244-1-9.echo.demo.svc.cluster.local A",
                "10-244-1-9.echo.demo.svc.cluster.local A 10.244.1.9",
            ),
        ],
    );
}

#[test]
fn reverse_names() {
    check(
        &cluster(),
        &[
            (
                "PTR of an IPv4 cluster address is the service",
                "20.0.96.10.in-addr.arpa PTR",
                "20.0.96.10.in-addr.arpa PTR echo.demo.svc.cluster.local",
            ),
            (
                "PTR of an IPv6 cluster address is the service",
                "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa PTR",
                "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa PTR echo.demo.svc.cluster.local",
            ),
            (
                "a cluster address wins over endpoints with the same address",
                "22.0.96.10.in-addr.arpa PTR",
                "22.0.96.10.in-addr.arpa PTR front.demo.svc.cluster.local",
            ),
            (
                "PTR of an endpoint is its hostname below the service",
                "5.1.244.10.in-addr.arpa PTR",
                "5.1.244.10.in-addr.arpa PTR db-0.db.demo.svc.cluster.local",
            ),
            (
                "a pod of several services has one PTR for each",
                "30.1.244.10.in-addr.arpa PTR",
                "30.1.244.10.in-addr.arpa PTR 10-244-1-30.alias.demo.svc.cluster.local \
             30.1.244.10.in-addr.arpa PTR 10-244-1-30.web.demo.svc.cluster.local",
            ),
            (
                "PTR of an unready endpoint is NXDOMAIN",
                "7.1.244.10.in-addr.arpa PTR",
                "NXDOMAIN SOA 244.10.in-addr.arpa",
            ),
            (
                "PTR of an address that nobody has is NXDOMAIN",
                "99.0.96.10.in-addr.arpa PTR",
                "NXDOMAIN SOA 96.10.in-addr.arpa",
            ),
            (
                "another type of an existing reverse name is NODATA",
                "20.0.96.10.in-addr.arpa A",
                "NOERROR SOA 96.10.in-addr.arpa",
            ),
            (
                "a network inside a reverse zone is NODATA",
                "0.96.10.in-addr.arpa PTR",
                "NOERROR SOA 96.10.in-addr.arpa",
            ),
            (
                "what is no address in a reverse zone is NXDOMAIN",
                "x.0.96.10.in-addr.arpa PTR",
                "NXDOMAIN SOA 96.10.in-addr.arpa",
            ),
            ("the apex of a reverse zone has an SOA", "96.10.in-addr.arpa SOA", "96.10.in-addr.arpa SOA 7"),
            (
                "the apex of a reverse zone has the name server",
                "96.10.in-addr.arpa NS",
                "96.10.in-addr.arpa NS kube-dns.kube-system.svc.cluster.local \
             + kube-dns.kube-system.svc.cluster.local A 10.96.0.10",
            ),
            (
                "PTR of a forward name that exists is NODATA",
                "echo.demo.svc.cluster.local PTR",
                "NOERROR SOA cluster.local",
            ),
            (
                "an endpoint that is no pod has its PTR too",
                "11.0.29.172.in-addr.arpa PTR",
                "11.0.29.172.in-addr.arpa PTR 172-29-0-11.hosts.demo.svc.cluster.local",
            ),
            ("an address outside the networks is not ours", "1.0.30.172.in-addr.arpa PTR", "not ours"),
            ("a name above our reverse zones is not ours", "10.in-addr.arpa NS", "not ours"),
        ],
    );
}

#[test]
fn external_names() {
    check(
        &cluster(),
        &[
            (
                "CNAME of an external name",
                "ext.demo.svc.cluster.local CNAME",
                "ext.demo.svc.cluster.local CNAME www.example.com",
            ),
            (
                "A of an external name is the CNAME, to be continued elsewhere",
                "ext.demo.svc.cluster.local A",
                "ext.demo.svc.cluster.local CNAME www.example.com chase www.example.com",
            ),
            (
                "an external name inside the zone is followed",
                "inner.demo.svc.cluster.local A",
                "inner.demo.svc.cluster.local CNAME echo.demo.svc.cluster.local \
             echo.demo.svc.cluster.local A 10.96.0.20",
            ),
            (
                "an external name that leads to nothing in the zone ends in NXDOMAIN",
                "dead.demo.svc.cluster.local A",
                "NXDOMAIN dead.demo.svc.cluster.local CNAME nosuch.demo.svc.cluster.local SOA cluster.local",
            ),
            (
                "a loop of external names has no records",
                "loop-a.demo.svc.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            (
                "an alias of itself has no records",
                "self.demo.svc.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            (
                "a chain of external names is followed",
                "link-9.demo.svc.cluster.local A",
                "link-9.demo.svc.cluster.local CNAME link-10.demo.svc.cluster.local \
                 link-10.demo.svc.cluster.local CNAME echo.demo.svc.cluster.local \
                 echo.demo.svc.cluster.local A 10.96.0.20",
            ),
            (
                "a chain of more than ten external names has no records",
                "link-0.demo.svc.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            (
                "names below an external name are NXDOMAIN",
                "x.ext.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "port names below an external name are NXDOMAIN",
                "_http._tcp.ext.demo.svc.cluster.local SRV",
                "NXDOMAIN SOA cluster.local",
            ),
        ],
    );
}

#[test]
fn pods_by_address() {
    check(
        &cluster(),
        &[
            (
                "a pod name echoes its IPv4 address",
                "10-244-1-5.demo.pod.cluster.local A",
                "10-244-1-5.demo.pod.cluster.local A 10.244.1.5",
            ),
            (
                "a pod name echoes its IPv6 address",
                "fd00-244--5.demo.pod.cluster.local AAAA",
                "fd00-244--5.demo.pod.cluster.local AAAA fd00:244::5",
            ),
            (
                "the other family of a pod name is NODATA",
                "10-244-1-5.demo.pod.cluster.local AAAA",
                "NOERROR SOA cluster.local",
            ),
            (
                "a pod name in an unknown namespace is NXDOMAIN",
                "10-244-1-5.nosuch.pod.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a pod name that is no address is NXDOMAIN",
                "db-0.demo.pod.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "a name below a pod name is NXDOMAIN",
                "x.10-244-1-5.demo.pod.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            ("a namespace under pod is NODATA", "demo.pod.cluster.local A", "NOERROR SOA cluster.local"),
            (
                "an unknown namespace under pod is NXDOMAIN",
                "nosuch.pod.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            ("pod itself is NODATA", "pod.cluster.local A", "NOERROR SOA cluster.local"),
        ],
    );
}

#[test]
fn names_of_the_zone_itself() {
    check(
        &cluster(),
        &[
            ("SOA at the apex", "cluster.local SOA", "cluster.local SOA 7"),
            (
                "NS at the apex is the DNS service with its addresses",
                "cluster.local NS",
                "cluster.local NS kube-dns.kube-system.svc.cluster.local + kube-dns.kube-system.svc.cluster.local A 10.96.0.10",
            ),
            ("A of the apex is NODATA", "cluster.local A", "NOERROR SOA cluster.local"),
            ("svc itself is NODATA", "svc.cluster.local A", "NOERROR SOA cluster.local"),
            ("an existing namespace is NODATA", "demo.svc.cluster.local A", "NOERROR SOA cluster.local"),
            (
                "a namespace without services is NODATA",
                "other.svc.cluster.local NS",
                "NOERROR SOA cluster.local",
            ),
            ("an unknown namespace is NXDOMAIN", "nosuch.svc.cluster.local A", "NXDOMAIN SOA cluster.local"),
            ("an unknown first label is NXDOMAIN", "www.cluster.local A", "NXDOMAIN SOA cluster.local"),
            (
                "a search list's leftover is NXDOMAIN",
                "www.example.com.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "dns-version is the version of the specification",
                "dns-version.cluster.local TXT",
                "dns-version.cluster.local TXT 1.1.0",
            ),
            (
                "another type of dns-version is NODATA",
                "dns-version.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            ("the SOA's server resolves", "ns.dns.cluster.local A", "ns.dns.cluster.local A 10.96.0.10"),
            ("the label above it exists", "dns.cluster.local A", "NOERROR SOA cluster.local"),
            ("a transfer is refused", "cluster.local AXFR", "REFUSED not authoritative"),
            ("an incremental transfer is refused", "cluster.local IXFR", "REFUSED not authoritative"),
            ("a name outside all zones is not ours", "www.example.com A", "not ours"),
            ("a name that only ends in the same letters is not ours", "xcluster.local A", "not ours"),
            ("the root is not ours", ". NS", "not ours"),
        ],
    );
}

#[test]
fn without_the_dns_service_the_server_names_itself() {
    let zone = Zone::build(config(), &support::view(&[support::namespace("demo")]), 7);
    check(
        &zone,
        &[
            (
                "NS without the DNS service is a name made for it, with the server's addresses",
                "cluster.local NS",
                "cluster.local NS ns.dns.cluster.local + ns.dns.cluster.local A 172.29.0.11",
            ),
            ("and that name resolves", "ns.dns.cluster.local A", "ns.dns.cluster.local A 172.29.0.11"),
        ],
    );
}

#[test]
fn before_the_first_snapshot_missing_names_are_failures_not_denials() {
    check(
        &unsynced(),
        &[
            ("an unknown service might exist", "echo.demo.svc.cluster.local A", "SERVFAIL not authoritative"),
            (
                "an unknown namespace might exist",
                "10-0-0-1.demo.pod.cluster.local A",
                "SERVFAIL not authoritative",
            ),
            (
                "an unknown address might have a name",
                "1.0.96.10.in-addr.arpa PTR",
                "SERVFAIL not authoritative",
            ),
            (
                "what does not depend on the cluster is answered",
                "dns-version.cluster.local TXT",
                "dns-version.cluster.local TXT 1.1.0",
            ),
        ],
    );
}

#[test]
fn a_chain_of_ten_external_names_is_followed_to_its_end() {
    let answer = cluster().answer(&question("link-1.demo.svc.cluster.local A")).expect("it is in the zone");
    assert_eq!(answer.answers.len(), 11, "ten links and the address");
}

#[test]
fn another_class_is_refused_inside_the_zone() {
    let question = Question { class: Class(3), ..question("cluster.local TXT") };
    let answer = cluster().answer(&question).expect("it is in the zone");
    assert_eq!(answer.rcode, Rcode::REFUSED);
}

#[test]
fn ttls_and_the_soa_are_as_configured() {
    let answer = cluster().answer(&question("nosuch.demo.svc.cluster.local A")).expect("it is in the zone");
    let [soa] = answer.authority.as_slice() else { panic!("one SOA: {answer:?}") };
    assert_eq!(soa.ttl_secs, 5);
    let text = format!("{:?}", soa.data);
    for part in [
        "primary: ns.dns.cluster.local.",
        "mailbox: hostmaster.cluster.local.",
        "serial: 7,",
        "refresh_secs: 7200",
        "retry_secs: 1800",
        "expire_secs: 86400",
        "minimum_secs: 5",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let answer = cluster().answer(&question("echo.demo.svc.cluster.local A")).expect("it is in the zone");
    assert_eq!(answer.answers[0].ttl_secs, 5);
    assert!(answer.authoritative);
    assert_eq!(show(&answer), "echo.demo.svc.cluster.local A 10.96.0.20");
}

#[test]
fn every_type_of_every_name_below_the_zone_is_authoritative_and_never_panics() {
    let zone = cluster();
    let labels =
        ["", "svc", "pod", "demo", "echo", "ext", "db", "db-0", "_tcp", "_http", "dns", "ns", "10-0-0-1"];
    for a in labels {
        for b in labels {
            for c in labels {
                for d in labels {
                    let name = [a, b, c, d, "cluster.local"].into_iter().filter(|label| !label.is_empty());
                    let name = name.collect::<Vec<_>>().join(".");
                    for rtype in [1, 2, 5, 6, 12, 16, 28, 33, 65, 255] {
                        let question =
                            Question { rtype: RecordType(rtype), ..question(&format!("{name} A")) };
                        let answer = zone.answer(&question).expect("it is in the zone");
                        assert!(answer.authoritative, "{question:?}");
                        let denied = answer.answers.is_empty() || answer.rcode == Rcode::NX_DOMAIN;
                        assert_eq!(
                            denied,
                            !answer.authority.is_empty(),
                            "an SOA for denials only: {question:?}"
                        );
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn names_of_any_bytes_never_panic(
        labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..64), 0..4),
        digits in proptest::collection::vec("[0-9a-f-]{1,5}", 0..6),
        suffix in proptest::sample::select(vec![
            "cluster.local", "svc.cluster.local", "demo.svc.cluster.local", "db.demo.svc.cluster.local",
            "demo.pod.cluster.local", "96.10.in-addr.arpa", "in-addr.arpa", "6.9.0.0.0.0.d.f.ip6.arpa", "arpa",
        ]),
        rtype: u16,
        class in 0u16..3,
    ) {
        let labels: Vec<&[u8]> =
            labels.iter().map(Vec::as_slice).chain(digits.iter().map(String::as_bytes)).collect();
        if let Ok(name) = Name::join(&labels, Name::parse(suffix).unwrap().as_wire()) {
            let question = Question { name, rtype: RecordType(rtype), class: Class(class) };
            let ours = cluster().answer(&question).is_some();
            prop_assert!(ours || suffix.ends_with("arpa"));
        }
    }
}
