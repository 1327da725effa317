//! A running server with a scripted cluster, a client, and a scripted upstream server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fairlead_dns::{At, Config, DnsError, DnsServer};
use fairlead_model::{Change, Endpoint, EndpointSlice, ObjectName, Revision, Service, ServiceKind, Update};
use futures::channel::mpsc;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct TestServer {
    pub(crate) v4: SocketAddr,
    pub(crate) v6: SocketAddr,
    /// Metrics, health, readiness.
    pub(crate) endpoints: Vec<SocketAddr>,
    updates: mpsc::UnboundedSender<Update>,
    sequence: u64,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), DnsError>>,
}

impl TestServer {
    /// A server that knows nothing of its cluster yet.
    pub(crate) async fn start(upstreams: Vec<SocketAddr>) -> Self {
        let any = |ip: IpAddr| SocketAddr::from((ip, 0));
        let (v4, v6) = (any(Ipv4Addr::LOCALHOST.into()), any(Ipv6Addr::LOCALHOST.into()));
        let config = Config {
            listen: vec![v4, v6],
            upstreams,
            metrics: At::Address(v4),
            health: At::Address(v4),
            ready: At::Address(v4),
            workers: 2,
            ..Config::default()
        };
        let (updates, receiver) = mpsc::unbounded();
        let server = DnsServer::new(config, receiver).await.unwrap();
        let [v4, v6] = server.addresses()[..] else { panic!("two addresses") };
        let endpoints = server.endpoint_addresses();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone()));
        Self { v4, v6, endpoints, updates, sequence: 0, shutdown, running }
    }

    /// Sends an update. It is applied when a name that it adds is answered: see [`TestServer::eventually`].
    pub(crate) fn update(&mut self, snapshot: bool, changes: Vec<Change>) {
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        self.updates.unbounded_send(Update { revision, snapshot, changes }).unwrap();
    }

    /// Asks over UDP until the answer is as wanted.
    pub(crate) async fn eventually(&self, name: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let asking = async {
            loop {
                let answer = udp(self.v4, &query(name, RecordType::A)).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asking).await.expect("the answer becomes as wanted")
    }

    /// Ends the server and returns how it ended.
    pub(crate) async fn stop(self) -> Result<(), DnsError> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.running).await.expect("it ends").unwrap()
    }
}

/// A question with the RD bit and without EDNS.
pub(crate) fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

/// The same with EDNS.
pub(crate) fn edns_query(name: &str, rtype: RecordType, payload_max: u16) -> Message {
    let mut message = query(name, rtype);
    let mut edns = Edns::new();
    edns.set_max_payload(payload_max);
    message.set_edns(edns);
    message
}

/// Asks over UDP from a socket that takes answers from the asked address only.
pub(crate) async fn udp(server: SocketAddr, query: &Message) -> Message {
    let bytes = udp_raw(server, &query.to_vec().unwrap()).await;
    let answer = Message::from_vec(&bytes).expect("a readable answer");
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.queries, query.queries);
    answer
}

/// Sends bytes and gives the first datagram that comes back.
pub(crate) async fn udp_raw(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((loopback(server), 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let size = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    buffer.truncate(size);
    buffer
}

/// Asks over a TCP connection of its own.
pub(crate) async fn tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    write_frame(&mut stream, &query.to_vec().unwrap()).await;
    Message::from_vec(&read_frame(&mut stream).await.expect("an answer")).unwrap()
}

pub(crate) async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await.unwrap();
}

/// A frame, or nothing at the end of the stream.
pub(crate) async fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = timeout(PATIENCE, stream.read_u16()).await.expect("a frame or an end").ok()?;
    let mut bytes = vec![0; usize::from(length)];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("the whole frame").unwrap();
    Some(bytes)
}

/// The body of an HTTP answer and its status line.
pub(crate) async fn http_get(server: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an answer").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().into(), body.into())
}

/// The addresses in an answer, sorted.
pub(crate) fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |record: &Record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let mut addresses: Vec<IpAddr> = message.answers.iter().filter_map(address).collect();
    addresses.sort();
    addresses
}

/// A service with a cluster address.
pub(crate) fn service(name: &str, address: IpAddr) -> Change {
    Change::PutService(Service {
        name: ObjectName::new("demo", name),
        addresses: vec![address],
        ..Service::default()
    })
}

/// A service that is something else.
pub(crate) fn service_of(name: &str, kind: ServiceKind) -> Change {
    Change::PutService(Service { name: ObjectName::new("demo", name), kind, ..Service::default() })
}

/// A slice of ready endpoints.
pub(crate) fn slice(service: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Change {
    let endpoint = |address| Endpoint::ready_at(address, "");
    Change::PutSlice(EndpointSlice {
        name: ObjectName::new("demo", format!("{service}-1")),
        service: service.into(),
        ports: Vec::new(),
        endpoints: addresses.into_iter().map(endpoint).collect(),
        triggered_unix_ns: 0,
    })
}

/// What an upstream server does with a question; over TCP when the flag is set. Nothing is silence.
type Script = dyn Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync;

/// An upstream server on loopback, UDP and TCP on one port. It counts what it is asked for clients.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Upstream {
    pub(crate) async fn start(
        script: impl Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let (listener, socket, address) = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            // The port may be somebody's for UDP.
            if let Ok(socket) = UdpSocket::bind(address).await {
                break (listener, socket, address);
            }
        };
        let asked = Arc::new(AtomicUsize::new(0));
        let udp = tokio::spawn(over_udp(socket, Arc::clone(&script), Arc::clone(&asked)));
        let tcp = tokio::spawn(over_tcp(listener, script, Arc::clone(&asked)));
        Self { address, asked, tasks: [udp, tcp] }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Counts what clients asked for; the server itself asks for the root to see whether anybody is there.
fn count(asked: &AtomicUsize, query: &Message) {
    if !query.queries[0].name.is_root() {
        asked.fetch_add(1, Ordering::SeqCst);
    }
}

async fn over_udp(socket: UdpSocket, script: Arc<Script>, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        let (size, peer) = socket.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..size]).unwrap();
        count(&asked, &query);
        if let Some(answer) = script(&query, false) {
            socket.send_to(&answer, peer).await.unwrap();
        }
    }
}

async fn over_tcp(listener: TcpListener, script: Arc<Script>, asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Some(bytes) = read_frame(&mut stream).await else { continue };
        let query = Message::from_vec(&bytes).unwrap();
        count(&asked, &query);
        if let Some(answer) = script(&query, true) {
            write_frame(&mut stream, &answer).await;
        }
    }
}

/// The answer to a question with some addresses 192.0.2.x of a TTL.
pub(crate) fn reply(query: &Message, count: u8, ttl_secs: u32) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.add_query(query.queries[0].clone());
    let owner = query.queries[0].name.clone();
    message.add_answers((1..=count).map(|last| {
        Record::from_rdata(owner.clone(), ttl_secs, RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, last))))
    }));
    message.set_edns(Edns::new());
    message
}

fn loopback(server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}
