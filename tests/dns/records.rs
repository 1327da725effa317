//! The rules of the Kubernetes DNS specification and CoreDNS's habits, each asked over every way.

use super::support::{CLUSTER, Server};

const COREFILE: &str = ".:53 {
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    loadbalance
}
";

#[test]
fn services_with_cluster_addresses() {
    Server::start(COREFILE, CLUSTER).check(&[
        (
            "1: case does not matter; 2: the answer keeps it",
            "ECHO.demo.SVC.Cluster.Local A",
            "NOERROR aa: ECHO.demo.SVC.Cluster.Local. A 10.96.0.20",
        ),
        ("3: the version", "dns-version.cluster.local TXT", "NOERROR aa: dns-version.cluster.local. TXT \"1.1.0\""),
        (
            "4: a denial carries the SOA",
            "none.demo.svc.cluster.local A",
            "NXDOMAIN aa:  | cluster.local. SOA",
        ),
        ("5: the SOA", "cluster.local SOA", "NOERROR aa: cluster.local. SOA"),
        (
            "6: A of a dual-stack service",
            "echo.demo.svc.cluster.local A",
            "NOERROR aa: echo.demo.svc.cluster.local. A 10.96.0.20",
        ),
        (
            "7: AAAA of a dual-stack service",
            "echo.demo.svc.cluster.local AAAA",
            "NOERROR aa: echo.demo.svc.cluster.local. AAAA fd00:96::20",
        ),
        ("8: the other family is NODATA", "v4only.demo.svc.cluster.local AAAA", "NOERROR aa:  | cluster.local. SOA"),
        (
            "9: without endpoints its address is answered",
            "front.demo.svc.cluster.local A",
            "NOERROR aa: front.demo.svc.cluster.local. A 10.96.0.22",
        ),
        (
            "10, 13: SRV of a named port, with the addresses",
            "_http._tcp.echo.demo.svc.cluster.local SRV",
            "NOERROR aa: _http._tcp.echo.demo.svc.cluster.local. SRV 0 50 80 echo.demo.svc.cluster.local. |  | \
             echo.demo.svc.cluster.local. A 10.96.0.20; echo.demo.svc.cluster.local. AAAA fd00:96::20",
        ),
        (
            "11: a port without a name has no SRV of its own",
            "_._tcp.echo.demo.svc.cluster.local SRV",
            "NXDOMAIN aa:  | cluster.local. SOA",
        ),
        (
            "14: SRV of the service is one for each port",
            "front.demo.svc.cluster.local SRV",
            "NOERROR aa: front.demo.svc.cluster.local. SRV 0 100 80 front.demo.svc.cluster.local. |  | \
             front.demo.svc.cluster.local. A 10.96.0.22",
        ),
        (
            "15: A of a port's name",
            "_http._tcp.front.demo.svc.cluster.local A",
            "NOERROR aa: _http._tcp.front.demo.svc.cluster.local. A 10.96.0.22",
        ),
        (
            "16: PTR of a cluster address",
            "-x 10.96.0.20",
            "NOERROR aa: 20.0.96.10.in-addr.arpa. PTR echo.demo.svc.cluster.local.",
        ),
        (
            "17: PTR of an IPv6 cluster address",
            "-x fd00:96::20",
            "NOERROR aa: 0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. PTR \
             echo.demo.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn headless_services() {
    Server::start(COREFILE, CLUSTER).check(&[
        (
            "19: A of each ready endpoint",
            "db.demo.svc.cluster.local A",
            "NOERROR aa: db.demo.svc.cluster.local. A 10.244.1.5; db.demo.svc.cluster.local. A 10.244.1.6; \
             db.demo.svc.cluster.local. A 10.244.2.5",
        ),
        (
            "20: AAAA of each ready endpoint",
            "db.demo.svc.cluster.local AAAA",
            "NOERROR aa: db.demo.svc.cluster.local. AAAA fd00:244:0:1::5",
        ),
        ("21: nothing ready is NXDOMAIN", "unready.demo.svc.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        (
            "22, 36: an endpoint by its hostname",
            "db-0.db.demo.svc.cluster.local A",
            "NOERROR aa: db-0.db.demo.svc.cluster.local. A 10.244.1.5",
        ),
        (
            "23: endpoints that share a hostname",
            "twin.db.demo.svc.cluster.local A",
            "NOERROR aa: twin.db.demo.svc.cluster.local. A 10.244.1.6; twin.db.demo.svc.cluster.local. A 10.244.2.5",
        ),
        (
            "24: an endpoint without a hostname, by its address",
            "10-244-1-30.web.demo.svc.cluster.local A",
            "NOERROR aa: 10-244-1-30.web.demo.svc.cluster.local. A 10.244.1.30",
        ),
        (
            "24: an IPv6 address as a label",
            "fd00-244--30.web.demo.svc.cluster.local AAAA",
            "NOERROR aa: fd00-244--30.web.demo.svc.cluster.local. AAAA fd00:244::30",
        ),
        (
            "24: one that would end in a dash",
            "fd00-244--0.web.demo.svc.cluster.local AAAA",
            "NOERROR aa: fd00-244--0.web.demo.svc.cluster.local. AAAA fd00:244::",
        ),
        (
            "26, 27: SRV of endpoints; the same target and port once, all its addresses",
            "_sql._tcp.db.demo.svc.cluster.local SRV",
            "NOERROR aa: _sql._tcp.db.demo.svc.cluster.local. SRV 0 25 5432 db-0.db.demo.svc.cluster.local.; \
             _sql._tcp.db.demo.svc.cluster.local. SRV 0 25 5432 twin.db.demo.svc.cluster.local. |  | \
             db-0.db.demo.svc.cluster.local. A 10.244.1.5; db-0.db.demo.svc.cluster.local. AAAA fd00:244:0:1::5; \
             twin.db.demo.svc.cluster.local. A 10.244.1.6; twin.db.demo.svc.cluster.local. A 10.244.2.5",
        ),
        (
            "28: an endpoint without ports has an address",
            "portless.demo.svc.cluster.local A",
            "NOERROR aa: portless.demo.svc.cluster.local. A 10.244.1.50",
        ),
        ("28: and no SRV", "portless.demo.svc.cluster.local SRV", "NOERROR aa:  | cluster.local. SOA"),
        (
            "29: PTR of an endpoint",
            "-x 10.244.1.5",
            "NOERROR aa: 5.1.244.10.in-addr.arpa. PTR db-0.db.demo.svc.cluster.local.",
        ),
        (
            "30: PTR of an endpoint of two services",
            "-x 10.244.1.30",
            "NOERROR aa: 30.1.244.10.in-addr.arpa. PTR 10-244-1-30.alias.demo.svc.cluster.local.; \
             30.1.244.10.in-addr.arpa. PTR 10-244-1-30.web.demo.svc.cluster.local.",
        ),
        ("31: an unknown endpoint", "x.db.demo.svc.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        (
            "32: endpoints of a service with an address have names, too",
            "10-244-1-9.echo.demo.svc.cluster.local A",
            "NOERROR aa: 10-244-1-9.echo.demo.svc.cluster.local. A 10.244.1.9",
        ),
        ("33: an endpoint that is not ready", "db-2.db.demo.svc.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        (
            "34: one whose readiness is unknown is ready",
            "web.demo.svc.cluster.local A",
            "NOERROR aa: web.demo.svc.cluster.local. A 10.244.1.30",
        ),
        (
            "34: publishNotReadyAddresses",
            "a.early.demo.svc.cluster.local A",
            "NOERROR aa: a.early.demo.svc.cluster.local. A 10.244.1.40",
        ),
    ]);
}

#[test]
fn external_names() {
    let corefile = format!(
        "{COREFILE}example.com:53 {{\n template IN A {{\n  answer \"{{{{ .Name }}}} 60 IN A 192.0.2.7\"\n }}\n}}\n"
    );
    Server::start(&corefile, CLUSTER).check(&[
        (
            "37: the alias",
            "ext.demo.svc.cluster.local CNAME",
            "NOERROR aa: ext.demo.svc.cluster.local. CNAME www.example.com.",
        ),
        (
            "38: with what it leads to",
            "ext.demo.svc.cluster.local A",
            "NOERROR aa: ext.demo.svc.cluster.local. CNAME www.example.com.; www.example.com. A 192.0.2.7",
        ),
        (
            "39: inside the zone",
            "inner.demo.svc.cluster.local A",
            "NOERROR aa: echo.demo.svc.cluster.local. A 10.96.0.20; \
             inner.demo.svc.cluster.local. CNAME echo.demo.svc.cluster.local.",
        ),
        ("39: in a circle", "loop-a.demo.svc.cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        ("41: below an alias", "x.ext.demo.svc.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
    ]);
}

#[test]
fn pods_and_denials() {
    Server::start(COREFILE, CLUSTER).check(&[
        (
            "44: any address in a namespace",
            "10-1-2-3.demo.pod.cluster.local A",
            "NOERROR aa: 10-1-2-3.demo.pod.cluster.local. A 10.1.2.3",
        ),
        ("44: no address", "x.demo.pod.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        ("44: no namespace", "10-1-2-3.none.pod.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        ("46: a namespace of pods", "demo.pod.cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        ("46: all pods", "pod.cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        ("47: the apex", "cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        ("47: all services", "svc.cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        (
            "47: a namespace without services",
            "empty.svc.cluster.local A",
            "NOERROR aa:  | cluster.local. SOA",
        ),
        ("48: an unknown namespace", "none.svc.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        ("48: an unknown first label", "none.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
        ("49: another type", "echo.demo.svc.cluster.local TXT", "NOERROR aa:  | cluster.local. SOA"),
        ("49: HTTPS", "echo.demo.svc.cluster.local TYPE65", "NOERROR aa:  | cluster.local. SOA"),
        (
            "49: another type of a missing name",
            "none.demo.svc.cluster.local TXT",
            "NXDOMAIN aa:  | cluster.local. SOA",
        ),
        (
            "50: too many labels",
            "a.b.c.d.echo.demo.svc.cluster.local A",
            "NXDOMAIN aa:  | cluster.local. SOA",
        ),
        ("51: nobody's address falls through to nobody", "-x 10.96.0.99", "REFUSED:"),
        ("51: PTR of a forward name", "echo.demo.svc.cluster.local PTR", "NOERROR aa:  | cluster.local. SOA"),
        (
            "52: the name server",
            "cluster.local NS",
            "NOERROR aa: cluster.local. NS kube-dns.kube-system.svc.cluster.local. |  | \
             kube-dns.kube-system.svc.cluster.local. A 10.96.0.10",
        ),
        ("53: another class", "echo.demo.svc.cluster.local A CH", "REFUSED:"),
        ("53: outside all zones", "www.example.org A", "REFUSED:"),
        (
            "53: a version of EDNS that nobody has",
            "+edns=1 +noednsneg echo.demo.svc.cluster.local A",
            "BADVERS:",
        ),
    ]);
}

#[test]
fn options_of_the_kubernetes_plugin() {
    let corefile =
        |zone: &str, options: &str| format!("{zone}:53 {{\n kubernetes {zone} {{\n  {options}\n }}\n}}\n");
    let blocks = [
        corefile("disabled.test", "pods disabled"),
        corefile("verified.test", "pods verified"),
        corefile("named.test", "endpoint_pod_names"),
        corefile("empty.test", "ignore empty_service"),
        corefile("bare.test", "noendpoints"),
        corefile("some.test", "namespaces kube-system"),
    ];
    Server::start(&blocks.concat(), CLUSTER).check(&[
        ("43: disabled", "10-244-1-60.demo.pod.disabled.test A", "NXDOMAIN aa:  | disabled.test. SOA"),
        (
            "45: verified, and there",
            "10-244-1-60.demo.pod.verified.test A",
            "NOERROR aa: 10-244-1-60.demo.pod.verified.test. A 10.244.1.60",
        ),
        (
            "45: in another namespace",
            "10-244-1-60.empty.pod.verified.test A",
            "NXDOMAIN aa:  | verified.test. SOA",
        ),
        ("45: not there", "10-244-1-61.demo.pod.verified.test A", "NXDOMAIN aa:  | verified.test. SOA"),
        (
            "25: an endpoint by its pod",
            "web-pod.web.demo.svc.named.test A",
            "NOERROR aa: web-pod.web.demo.svc.named.test. A 10.244.1.30",
        ),
        (
            "25: hostname before pod",
            "db-0.db.demo.svc.named.test A",
            "NOERROR aa: db-0.db.demo.svc.named.test. A 10.244.1.5",
        ),
        (
            "9: a service without endpoints, ignored",
            "front.demo.svc.empty.test A",
            "NXDOMAIN aa:  | empty.test. SOA",
        ),
        (
            "9: one with endpoints",
            "echo.demo.svc.empty.test A",
            "NOERROR aa: echo.demo.svc.empty.test. A 10.96.0.20",
        ),
        ("no endpoints, no headless services", "db.demo.svc.bare.test A", "NXDOMAIN aa:  | bare.test. SOA"),
        ("no names of endpoints", "10-244-1-9.echo.demo.svc.bare.test A", "NXDOMAIN aa:  | bare.test. SOA"),
        ("a namespace that is not exposed", "echo.demo.svc.some.test A", "NXDOMAIN aa:  | some.test. SOA"),
        ("nor its own name", "demo.svc.some.test A", "NXDOMAIN aa:  | some.test. SOA"),
        (
            "one that is",
            "kube-dns.kube-system.svc.some.test A",
            "NOERROR aa: kube-dns.kube-system.svc.some.test. A 10.96.0.10",
        ),
    ]);
}

#[test]
fn a_headless_service_has_names_for_its_endpoints_in_a_topology_zone() {
    let in_zone = |zone: &str, hostname: &str| {
        (format!("hostname: {hostname},"), format!("zone: {zone}, hostname: {hostname},"))
    };
    let objects = [in_zone("west-a", "db-0"), in_zone("west-b", "twin")]
        .iter()
        .fold(CLUSTER.to_owned(), |objects, (old, new)| objects.replace(old, new));
    let corefile = ".:53 {\n kubernetes cluster.local {\n  zonal\n }\n}\n";
    let server = Server::start(corefile, &objects);
    let denied = "NXDOMAIN aa:  | cluster.local. SOA";
    server.check(&[
        (
            "pin: the endpoints of the zone",
            "west-a.pin._zone.db.demo.svc.cluster.local A",
            "NOERROR aa: west-a.pin._zone.db.demo.svc.cluster.local. A 10.244.1.5",
        ),
        (
            "of the family asked for",
            "west-a.pin._zone.db.demo.svc.cluster.local AAAA",
            "NOERROR aa: west-a.pin._zone.db.demo.svc.cluster.local. AAAA fd00:244:0:1::5",
        ),
        (
            "SRV with the names they have",
            "west-b.pin._zone.db.demo.svc.cluster.local SRV",
            "NOERROR aa: west-b.pin._zone.db.demo.svc.cluster.local. SRV 0 50 5432 twin.db.demo.svc.cluster.local. \
             |  | twin.db.demo.svc.cluster.local. A 10.244.1.6; twin.db.demo.svc.cluster.local. A 10.244.2.5",
        ),
        (
            "pin: an empty zone is empty",
            "west-c.pin._zone.db.demo.svc.cluster.local A",
            "NOERROR aa:  | cluster.local. SOA",
        ),
        (
            "prefer: then it is everybody",
            "west-c.prefer._zone.web.demo.svc.cluster.local A",
            "NOERROR aa: west-c.prefer._zone.web.demo.svc.cluster.local. A 10.244.1.30",
        ),
        ("only of headless services", "west-a.pin._zone.echo.demo.svc.cluster.local A", denied),
        ("in these two ways", "west-a.near._zone.db.demo.svc.cluster.local A", denied),
    ]);
    // The zone of an endpoint changes, and nothing else does.
    server.write("objects.yaml", &objects.replace("west-b", "west-c"));
    server.eventually(
        "west-c.pin._zone.db.demo.svc.cluster.local A",
        "NOERROR aa: west-c.pin._zone.db.demo.svc.cluster.local. A 10.244.1.6; \
         west-c.pin._zone.db.demo.svc.cluster.local. A 10.244.2.5",
    );
    let off = Server::start(".:53 {\n kubernetes cluster.local\n}\n", &objects);
    off.check(&[("without the option", "west-a.pin._zone.db.demo.svc.cluster.local A", denied)]);
}

#[test]
fn a_change_of_the_cluster_is_answered_at_once() {
    let server = Server::start(COREFILE, CLUSTER);
    let (question, own) = ("front.demo.svc.cluster.local A", "front.demo.svc.cluster.local.");
    server.eventually(question, &format!("NOERROR aa: {own} A 10.96.0.22"));
    // 42: a service becomes an alias and back.
    let spec = "clusterIP: 10.96.0.22\n  clusterIPs: [10.96.0.22]";
    assert!(CLUSTER.contains(spec));
    server.write(
        "objects.yaml",
        &CLUSTER.replace(spec, "type: ExternalName\n  externalName: v4only.demo.svc.cluster.local"),
    );
    server.eventually(
        question,
        &format!("NOERROR aa: {own} CNAME v4only.demo.svc.cluster.local.; v4only.demo.svc.cluster.local. A 10.96.0.21"),
    );
    server.write("objects.yaml", CLUSTER);
    server.eventually(question, &format!("NOERROR aa: {own} A 10.96.0.22"));
    // 35: an endpoint becomes ready.
    let unready = "addresses: [10.244.1.35], conditions: { ready: false }";
    assert!(CLUSTER.contains(unready));
    server.write("objects.yaml", &CLUSTER.replace(unready, "addresses: [10.244.1.35]"));
    server.eventually(
        "unready.demo.svc.cluster.local A",
        "NOERROR aa: unready.demo.svc.cluster.local. A 10.244.1.35",
    );
}

#[test]
fn a_zone_is_transferred_whole_in_several_messages_to_whom_it_may_concern() {
    let mut objects = CLUSTER.to_owned();
    for index in 0..300 {
        objects.push_str(&format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: many-{index}, namespace: demo }}\nspec: {{ clusterIP: 10.97.{}.{}, clusterIPs: [10.97.{}.{}] }}\n",
            index / 256, index % 256, index / 256, index % 256
        ));
    }
    let corefile = "cluster.local:53 {\n kubernetes\n transfer {\n  to *\n }\n}\nclosed.test:53 {\n kubernetes\n transfer {\n  to 192.0.2.1\n }\n}\nplain.test:53 {\n kubernetes\n}\n";
    let server = Server::start(corefile, &objects);
    let text = server.dig_text("cluster.local AXFR");
    let summary =
        text.lines().find(|line| line.starts_with(";; XFR size:")).unwrap_or_else(|| panic!("{text}"));
    let messages: usize =
        summary.split("messages ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(messages > 1, "{summary}");
    assert_eq!(text.lines().filter(|line| line.contains("\tSOA\t")).count(), 2, "{text}");
    for expected in [
        "many-299.demo.svc.cluster.local. 5 IN\tA\t10.97.1.43",
        "db-0.db.demo.svc.cluster.local.",
        "ext.demo.svc.cluster.local. 5",
        "_http._tcp.echo.demo.svc.cluster.local.",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    // Who has this serial or a later one gets the SOA alone, who has an earlier one the whole zone.
    let serial: u32 = server.short("cluster.local SOA")[0].split(' ').nth(2).unwrap().parse().unwrap();
    let bytes_for = |serial: u32| -> usize {
        let text = server.dig_text(&format!("cluster.local IXFR={serial} +tcp"));
        let bytes = text.split("bytes ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        bytes.unwrap_or_else(|| panic!("{text}"))
    };
    assert!(bytes_for(serial) < 200 && bytes_for(serial + 1) < 200);
    assert!(bytes_for(serial - 1) > 2000);
    assert_eq!(server.ask("closed.test AXFR +tcp"), "REFUSED:");
    assert_eq!(server.ask("plain.test AXFR +tcp"), "REFUSED:");
}
