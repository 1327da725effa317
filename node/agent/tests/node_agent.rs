//! Two real agents, a feed, pods with real sockets. Needs root and the eBPF object.
//!
//! One scenario, because the process itself joins a node's cgroup.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use fairlead_abi::names::globals;
use fairlead_agent::{Applied, PodReport, Status};
use fairlead_flows::Record;
use fairlead_kernel::features::Helpers;
use fairlead_kubelet::network::Attachment;
use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{TCP_PORT, ask, connect, serve},
    eventually,
    netns::run_in,
    topology::UPLINK,
};

use crate::{
    cluster::{VIP4, VIP6, endpoints, node, pod, service},
    feed::Feed,
    running::RunningAgent,
};

#[path = "node_agent/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node_agent/feed.rs"]
mod feed;
#[path = "node_agent/running.rs"]
mod running;

#[test]
fn a_cluster_of_two_agents_serves_tells_and_survives() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let topology = TwoNodes::new();
    let nodes = vec![node("a", 1, &topology.a.addresses), node("b", 2, &topology.b.addresses), service()];
    let mut feed = Feed::start(&topology.a, nodes);
    let mut a = RunningAgent::start("a", &topology.a, feed.endpoint.clone(), directory.path());
    let b = RunningAgent::start("b", &topology.b, feed.endpoint.clone(), directory.path());
    a.wait_ready();
    b.wait_ready();
    let client = a.attach("client");
    let near = a.attach("near");
    let far = b.attach("far");
    let _inside = InCgroup::enter(&a.cgroup().join("client"));
    serve(&near.netns, &near.addresses, "near");
    serve(&far.netns, &far.addresses, "far");

    a_service_without_endpoints_refuses(&client);
    let mut changes = endpoints(&[("a", &near.addresses), ("b", &far.addresses)]);
    changes.extend([
        pod("client", "a", &client.addresses),
        pod("near", "a", &near.addresses),
        pod("far", "b", &far.addresses),
    ]);
    feed.change(changes);
    until_applied(&a, &feed);
    the_service_reaches_both_nodes(&client);
    the_agent_says_what_it_did(&a);
    flows_have_names(&a);
    an_uplink_that_another_interface_replaces_is_taken_up(&topology, [&a, &b], &client, &far);
    a_killed_agent_comes_back_unnoticed(&mut a, &mut feed, &client, &near);
    only_retained_pods_stay(&a, &client, &near);
    many_pods_at_once_get_a_place_each(&a);
}

/// True when the machine can run this; a machine that must (`CI=true`) fails instead of skipping.
fn can_run() -> bool {
    let object = fairlead_kernel::bpf::object::embedded().is_ok();
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if object && root {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root and the eBPF object (cargo xtask build)");
    eprintln!("skipped: this test needs root and the eBPF object (cargo xtask build)");
    false
}

fn vips() -> [SocketAddr; 2] {
    [VIP4, VIP6].map(|vip| SocketAddr::new(vip, 80))
}

fn status(agent: &RunningAgent) -> Status {
    serde_json::from_str(&agent.admin("/status").1).expect("a status")
}

fn until_applied(agent: &RunningAgent, feed: &Feed) {
    let answer = agent.admin(&format!("/applied?sequence={}", feed.sequence())).1;
    let applied: Applied = serde_json::from_str(&answer).expect("what was applied");
    assert_eq!((applied.sequence, status(agent).sequence), (feed.sequence(), feed.sequence()));
}

fn a_service_without_endpoints_refuses(client: &Attachment) {
    let helpers = Helpers::of_this_kernel().expect("the kernel answers what it has");
    // An old kernel has one error for every refusal.
    let refused = if helpers.has(globals::SET_RETVAL) {
        ErrorKind::ConnectionRefused
    } else {
        ErrorKind::PermissionDenied
    };
    run_in(&client.netns, || {
        for vip in vips() {
            assert_eq!(connect(vip).expect_err("nobody is there").kind(), refused);
        }
    });
}

fn the_service_reaches_both_nodes(client: &Attachment) {
    run_in(&client.netns, || {
        for vip in vips() {
            let answers: std::collections::BTreeSet<String> = (0..40)
                .map(|_| connect(vip).and_then(|mut stream| ask(&mut stream)).expect("an answer"))
                .collect();
            assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["far", "near"], "{vip}");
        }
    });
}

fn the_agent_says_what_it_did(a: &RunningAgent) {
    let status = status(a);
    assert!(status.ready && status.connected, "{status:?}");
    assert_eq!((status.pods, status.problems.len(), status.last_error.as_deref()), (2, 0, None));
    assert!(status.programs.iter().any(|program| program.name == "connect4" && program.id != 0));
    let services = status.maps.iter().find(|map| map.name == "SERVICES").expect("a map");
    assert_eq!(services.used, 2);

    assert_eq!(a.metrics("/proxyMode").1, "ebpf");
    let (code, metrics) = a.metrics("/metrics");
    assert!(code.contains("200"), "{code}");
    for line in [
        "fairlead_services 2",
        "fairlead_feed_connected 1",
        "fairlead_pod_connections_total{namespace=\"demo\",pod=\"client\",outcome=\"refused\"} 2",
        "kubeproxy_sync_proxy_rules_duration_seconds_count",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let (code, healthz) = a.health("/healthz");
    assert!(code.contains("200") && healthz.contains("\"nodeEligible\":true"), "{code} {healthz}");
    assert!(a.health("/livez").0.contains("200"));

    let pods: Vec<PodReport> = serde_json::from_str(&a.admin("/pods").1).expect("pods");
    let client = pods.iter().find(|pod| pod.name == "client").expect("the client");
    assert_eq!((client.connections_opened, client.connections_refused), (80, 2));
    assert!(client.transmit_bytes > 0 && client.receive_packets > 0, "{client:?}");
}

fn flows_have_names(a: &RunningAgent) {
    let wanted = |record: &Record| {
        let service = record.service.as_ref().and_then(|service| service.name.as_deref());
        record.source.pod.as_deref() == Some("client")
            && service == Some("echo")
            && record.destination.pod.as_deref() == Some("far")
            && record.state == "ended"
            && record.bytes_sent > 0
    };
    eventually("a record of the client's connection to the other node", || {
        let (_, lines) = a.admin("/flows?pod=demo/client&verdict=forwarded");
        let records = lines.lines().map(|line| serde_json::from_str::<Record>(line).expect("a record"));
        records.into_iter().any(|record| wanted(&record)).then_some(())
    });
    let (_, denied) = a.admin("/flows?verdict=denied");
    assert!(denied.contains("\"reason\":\"no-endpoints\""), "{denied}");
    assert!(a.admin("/flows?verdict=maybe").0.contains("400"));
}

/// By events: nothing else looks at interfaces within the time that a test waits.
fn an_uplink_that_another_interface_replaces_is_taken_up(
    topology: &TwoNodes,
    agents: [&RunningAgent; 2],
    client: &Attachment,
    far: &Attachment,
) {
    let repairs = || agents.map(|agent| status(agent).repairs);
    let everything_works = |when: &str| {
        eventually("ways to the other node's pods", || {
            let routes = |family| topology.a.netns.ip(&[family, "route", "show", "proto", "70"]);
            ["-4", "-6"].iter().all(|family| routes(family).contains(" via ")).then_some(())
        });
        the_service_reaches_both_nodes(client);
        for address in &far.addresses {
            let said = topology
                .a
                .netns
                .run(|| connect(SocketAddr::new(*address, TCP_PORT)).and_then(|mut stream| ask(&mut stream)));
            assert_eq!(said.ok().as_deref(), Some("far"), "{when}, from the node itself to {address}");
        }
        assert_eq!(status(agents[0]).last_error, None, "{when}");
    };
    assert_eq!(repairs(), [0, 0]);
    topology.cut_wire();
    eventually("the node without addresses", || (status(agents[0]).interfaces.is_empty()).then_some(()));
    topology.renew_wire();
    eventually("the uplinks to be taken up", || (repairs() == [1, 1]).then_some(()));
    for agent in agents {
        let last = status(agent).last_repair.unwrap_or_default();
        assert!(last.contains(UPLINK), "{last}");
        assert!(agent.metrics("/metrics").1.contains("fairlead_repairs_total 1\n"));
    }
    everything_works("with other uplinks");
    topology.a.renew_addresses();
    everything_works("with addresses that went and came");
    assert_eq!(repairs(), [1, 1], "each is told once");
}

fn a_killed_agent_comes_back_unnoticed(
    a: &mut RunningAgent,
    feed: &mut Feed,
    client: &Attachment,
    near: &Attachment,
) {
    let mut old = run_in(&client.netns, || vips().map(|vip| connect(vip).expect("connects")));
    let second = a.second_instance();
    assert!(second.contains("is locked"), "{second}");
    a.kill_and_restart();
    for stream in &mut old {
        ask(stream).expect("an old connection works");
    }
    run_in(&client.netns, || {
        for vip in vips() {
            connect(vip).and_then(|mut stream| ask(&mut stream)).expect("a new connection works");
        }
    });
    a.wait_ready();
    assert_eq!(&a.attach("client"), client, "the same place as before");
    // What changed while nobody was there is applied.
    feed.change(endpoints(&[("a", &near.addresses)]));
    until_applied(a, feed);
    run_in(&client.netns, || {
        for vip in vips() {
            let answers = (0..10).map(|_| connect(vip).and_then(|mut stream| ask(&mut stream)));
            assert!(answers.map(|answer| answer.expect("an answer")).all(|name| name == "near"));
        }
    });
}

fn only_retained_pods_stay(a: &RunningAgent, client: &Attachment, near: &Attachment) {
    let stray = a.config.netns_dir.join("pod-nobody-knows");
    fairlead_kernel::net::Namespace::at(&stray).create().expect("a namespace that a crash left");
    a.retain(&["near"]);
    let gone: [&Path; 2] = [&client.netns, &stray];
    assert!(gone.iter().all(|path| !path.exists()));
    assert!(near.netns.exists());
    a.detach("near");
    a.detach("near");
    assert!(!near.netns.exists());
    assert_eq!(status(a).pods, 0);
    let addresses: Vec<IpAddr> = a.attach("another").addresses;
    assert!(!addresses.iter().any(|address| client.addresses.contains(address)), "an address rests");
}

fn many_pods_at_once_get_a_place_each(a: &RunningAgent) {
    let names: Vec<String> = (0..24).map(|number| format!("many-{number}")).collect();
    let places = a.attach_all(&names);
    let addresses: std::collections::BTreeSet<_> = places.iter().flat_map(|place| &place.addresses).collect();
    assert_eq!(addresses.len(), 2 * names.len());
    assert_eq!(a.attach_all(&names), places, "a second time nothing changes");
    a.retain(&[]);
    assert!(places.iter().all(|place| !place.netns.exists()));
}
