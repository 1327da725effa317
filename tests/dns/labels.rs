//! The names of what has certain labels, and of nothing else.

use super::support::{CLUSTER, Server, refuses_with};

/// The echo service and its namespace with labels, and a second service with others.
fn labelled(tier: &str, team: &str) -> String {
    CLUSTER
        .replace(
            "metadata: { name: echo, namespace: demo }",
            &format!("metadata: {{ name: echo, namespace: demo, labels: {{ tier: {tier}, app: echo }} }}"),
        )
        .replace(
            "metadata: { name: v4only, namespace: demo }",
            "metadata: { name: v4only, namespace: demo, labels: { tier: back } }",
        )
        .replace(
            "metadata: { name: demo }",
            &format!("metadata: {{ name: demo, labels: {{ team: {team} }} }}"),
        )
}

const ECHO: &str = "NOERROR aa: echo.demo.svc.cluster.local. A 10.96.0.20";
const ABSENT: &str = "NXDOMAIN aa:  | cluster.local. SOA";

fn corefile(options: &str) -> String {
    format!(".:53 {{\n kubernetes cluster.local 10.in-addr.arpa {{\n  {options}\n }}\n}}\n")
}

#[test]
fn only_services_that_match_have_names() {
    let rows = [
        ("labels tier=front", true, false),
        ("labels tier in (front, back),app", true, false),
        ("labels tier notin (front),tier", false, true),
        ("labels !app", false, true),
        ("labels tier", true, true),
        ("labels tier!=front,app", false, false),
    ];
    for (option, echo, v4only) in rows {
        let server = Server::start(&corefile(option), &labelled("front", "blue"));
        // Until it is known what matches, nothing is denied.
        server.eventually("none.demo.svc.cluster.local A", ABSENT);
        let reverse = "NOERROR aa: 20.0.96.10.in-addr.arpa. PTR echo.demo.svc.cluster.local.";
        server.check(&[
            (option, "echo.demo.svc.cluster.local A", if echo { ECHO } else { ABSENT }),
            (option, "-x 10.96.0.20", if echo { reverse } else { "NXDOMAIN aa:  | 10.in-addr.arpa. SOA" }),
            (
                option,
                "v4only.demo.svc.cluster.local A",
                if v4only { "NOERROR aa: v4only.demo.svc.cluster.local. A 10.96.0.21" } else { ABSENT },
            ),
            (option, "demo.svc.cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        ]);
    }
}

#[test]
fn only_pods_that_match_are_verified() {
    let objects = labelled("front", "blue").replace(
        "metadata: { name: client, namespace: demo }",
        "metadata: { name: client, namespace: demo, labels: { tier: front } }",
    );
    let client = "NOERROR aa: 10-244-1-60.demo.pod.cluster.local. A 10.244.1.60";
    let rows = [
        ("labels tier=front\n  pods verified", client, ABSENT),
        (
            "pods verified\n  labels !tier",
            ABSENT,
            "NOERROR aa: 127-0-0-1.demo.pod.cluster.local. A 127.0.0.1",
        ),
        // Nobody looks at pods where every address has a name.
        (
            "pods insecure\n  labels !tier",
            client,
            "NOERROR aa: 127-0-0-1.demo.pod.cluster.local. A 127.0.0.1",
        ),
    ];
    for (options, labelled, other) in rows {
        let server = Server::start(&corefile(options), &objects);
        server.eventually("none.demo.svc.cluster.local A", ABSENT);
        server.check(&[
            (options, "10-244-1-60.demo.pod.cluster.local A", labelled),
            (options, "127-0-0-1.demo.pod.cluster.local A", other),
        ]);
    }
}

#[test]
fn only_namespaces_that_match_have_names() {
    let corefile = corefile("namespace_labels team=blue");
    let server = Server::start(&corefile, &labelled("front", "blue"));
    server.eventually("echo.demo.svc.cluster.local A", ECHO);
    server.check(&[
        ("the namespace exists", "demo.svc.cluster.local A", "NOERROR aa:  | cluster.local. SOA"),
        ("another one does not", "kube-system.svc.cluster.local A", ABSENT),
        ("nor do its services", "kube-dns.kube-system.svc.cluster.local A", ABSENT),
    ]);
}

#[test]
fn a_label_that_comes_or_goes_is_seen_at_once() {
    let server = Server::start(&corefile("labels tier=front"), &labelled("front", "blue"));
    server.eventually("echo.demo.svc.cluster.local A", ECHO);
    server.write("objects.yaml", &labelled("back", "blue"));
    server.eventually("echo.demo.svc.cluster.local A", ABSENT);
    server.write("objects.yaml", &labelled("front", "blue"));
    server.eventually("echo.demo.svc.cluster.local A", ECHO);
}

#[test]
fn a_selector_that_is_none_stops_the_start() {
    let rows = [
        ("labels a=(", "Corefile:3: kubernetes: \"a=(\" is not a label selector:"),
        ("labels", "Corefile:3: kubernetes: needs a label selector, such as tier=front"),
        (
            "namespaces demo\n  namespace_labels team=blue",
            "Corefile:2: kubernetes: takes either namespaces or namespace_labels, not both",
        ),
        ("multicluster clusterset.local", "Corefile:3: kubernetes: multicluster is not supported"),
    ];
    for (option, expected) in rows {
        let said = refuses_with(&corefile(option), CLUSTER);
        assert!(said.contains(expected), "want {expected}\ngot  {said}");
    }
}
