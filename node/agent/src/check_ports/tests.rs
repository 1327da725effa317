use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use fairlead_model::{Change, Endpoint, EndpointSlice, ObjectName, Revision, Service, TrafficPolicy, Update};
use tokio::{sync::watch, task::JoinHandle};

use super::*;
use crate::{cluster::Cluster, stats::Stats};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Running {
    cluster: Arc<Cluster>,
    stats: Arc<Stats>,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
    sequence: u64,
}

impl Running {
    fn start() -> Self {
        let (cluster, stats) = (Arc::new(Cluster::default()), Arc::new(Stats::default()));
        let (ready_sender, ready) = watch::channel(true);
        stats.update(|stats| stats.node_port_addresses = vec![HERE]);
        let health = Health::new("here".into(), Arc::clone(&cluster), Arc::clone(&stats), ready);
        let stop = CancellationToken::new();
        let task = tokio::spawn(CheckPorts::new(Arc::new(health), false).run(stop.clone()));
        Self { cluster, stats, ready: ready_sender, stop, task, sequence: 0 }
    }

    fn tell(&mut self, changes: Vec<Change>) {
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        self.cluster.apply(Update { revision, snapshot: false, changes }, "here");
        self.stats.update(|_| {});
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("stops");
    }
}

fn service(external_policy: TrafficPolicy, port: u16) -> Change {
    Change::PutService(Service {
        name: ObjectName::new("demo", "web"),
        external_policy,
        health_check_port: port,
        ..Service::default()
    })
}

/// An endpoint on this node.
fn endpoint(ready: bool) -> Change {
    Change::PutSlice(EndpointSlice {
        name: ObjectName::new("demo", "web-1"),
        service: "web".into(),
        endpoints: vec![Endpoint {
            ready,
            terminating: !ready,
            ..Endpoint::ready_at(IpAddr::from([10, 244, 0, 5]), "here")
        }],
        ..EndpointSlice::default()
    })
}

fn free_port() -> u16 {
    TcpListener::bind((HERE, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Head and body, or none when nobody listens.
async fn ask(port: u16) -> Option<(String, serde_json::Value)> {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect((HERE, port)).ok()?;
        write!(stream, "GET /whatever HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default()))
    });
    asked.await.expect("no panic")
}

/// Asks until the answer pleases.
async fn until(
    port: u16,
    pleases: impl Fn(&Option<(String, serde_json::Value)>) -> bool,
) -> Option<(String, serde_json::Value)> {
    loop {
        let answer = ask(port).await;
        if pleases(&answer) {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_learns_whether_the_service_has_ready_endpoints_here() {
    let (port, mut running) = (free_port(), Running::start());
    running.tell(vec![service(TrafficPolicy::Local, port), endpoint(true)]);
    let (head, body) = until(port, Option::is_some).await.expect("an answer");
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(head.contains("x-load-balancing-endpoint-weight: 1"), "{head}");
    let service_name = json!({ "namespace": "demo", "name": "web" });
    assert_eq!(body, json!({ "service": service_name, "localEndpoints": 1, "serviceProxyHealthy": true }));

    running.tell(vec![endpoint(false)]);
    let (head, body) = ask(port).await.expect("an answer");
    assert!(head.starts_with("http/1.0 503"), "only a terminating endpoint is left: {head}");
    assert_eq!(body["localEndpoints"], 0);

    running.tell(vec![endpoint(true)]);
    running.ready.send_replace(false);
    let (head, body) = ask(port).await.expect("an answer");
    assert!(head.starts_with("http/1.0 503"), "the proxy does not know the cluster: {head}");
    assert_eq!((&body["serviceProxyHealthy"], &body["localEndpoints"]), (&json!(false), &json!(1)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_closes_with_the_policy_and_opens_again() {
    let (port, mut running) = (free_port(), Running::start());
    for _ in 0..3 {
        running.tell(vec![service(TrafficPolicy::Local, port), endpoint(true)]);
        until(port, Option::is_some).await;
        running.tell(vec![service(TrafficPolicy::Cluster, port)]);
        until(port, Option::is_none).await;
        TcpListener::bind((HERE, port)).expect("the port is free again");
    }
    running.tell(vec![service(TrafficPolicy::Local, port)]);
    until(port, Option::is_some).await;
    running.stop().await;
    assert!(ask(port).await.is_none(), "a stopped agent listens no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_opened_when_it_is_free() {
    let taken = TcpListener::bind((HERE, 0)).expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let mut running = Running::start();
    let mut ports = CheckPorts::new(
        Arc::new(Health::new(
            "here".into(),
            Arc::clone(&running.cluster),
            Arc::clone(&running.stats),
            running.ready.subscribe(),
        )),
        false,
    );
    running.stop.cancel();
    running.tell(vec![service(TrafficPolicy::Local, port), endpoint(true)]);
    ports.follow().await;
    assert!(ports.retry_at.is_some() && ports.ports[&port].warned);
    ports.follow().await;
    assert!(ports.retry_at.is_some(), "it waits for the retry");
    drop(taken);
    ports.retry_at = Some(Instant::now());
    ports.follow().await;
    assert_eq!(ports.retry_at, None);
    assert!(ask(port).await.is_some());
}
