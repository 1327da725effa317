//! Clients that connect, ask and keep streams without a pause, and forgive nothing.

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, ensure};
use fairlead_bench::proxy::Proxy;
use fairlead_testkit::{
    Node, NodesAndClient,
    echo::{ANSWER_WAIT, ask, connect},
    eventually,
    netns::run_in,
};

use crate::cluster::{DNS, HTTP, NODE_PORT, addresses};

/// Names the network namespace of the clients to the process that they are in.
const NETNS: &str = "FAIRLEAD_TEST_NETNS";
/// Connections between two events.
const BETWEEN: usize = 20;

/// What clients have done.
#[derive(Default, Debug)]
struct Done {
    connections: AtomicUsize,
    datagrams: AtomicUsize,
    on_streams: AtomicUsize,
    stop: AtomicBool,
    failed: Mutex<Option<String>>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let (connections, datagrams) = (of(&self.connections), of(&self.datagrams));
        write!(
            f,
            "{connections} connections, {datagrams} datagrams, {} answers on streams",
            of(&self.on_streams)
        )
    }
}

/// Threads of clients in one network namespace.
struct Clients {
    done: Arc<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// For each address: one that connects anew each time, one that keeps a stream, for the TCP ones; one with a socket of
    /// its own for each question and one that keeps its socket, for the UDP ones.
    fn start(netns: &Path, tcp: &[SocketAddr], udp: &[SocketAddr]) -> Self {
        let done = Arc::new(Done::default());
        let mut threads = Vec::new();
        let mut client = |to: SocketAddr, run: fn(&Done, SocketAddr) -> io::Result<()>| {
            let (done, netns) = (Arc::clone(&done), netns.to_owned());
            threads.push(thread::spawn(move || {
                if let Err(error) = run_in(&netns, || run(&done, to)) {
                    done.failed.lock().expect("no panic").get_or_insert(format!("{to}: {error}"));
                }
            }));
        };
        for to in tcp {
            client(*to, new_connections);
            client(*to, one_stream);
        }
        for to in udp {
            client(*to, new_sockets);
            client(*to, one_socket);
        }
        Self { done, threads }
    }

    fn stop(self) -> Arc<Done> {
        self.done.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        self.done
    }
}

fn new_connections(done: &Done, to: SocketAddr) -> io::Result<()> {
    while !done.stop.load(Ordering::Relaxed) {
        ask(&mut connect(to)?)?;
        done.connections.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A stream belongs to its backend to the end, whatever happens to the service.
fn one_stream(done: &Done, to: SocketAddr) -> io::Result<()> {
    let mut stream: TcpStream = connect(to)?;
    let first = ask(&mut stream)?;
    while !done.stop.load(Ordering::Relaxed) {
        let answer = ask(&mut stream)?;
        if answer != first {
            return Err(io::Error::other(format!("the stream of {first} is answered by {answer}")));
        }
        done.on_streams.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
    Ok(())
}

fn new_sockets(done: &Done, to: SocketAddr) -> io::Result<()> {
    while !done.stop.load(Ordering::Relaxed) {
        datagram(&socket(to)?, to)?;
        done.datagrams.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn one_socket(done: &Done, to: SocketAddr) -> io::Result<()> {
    let socket = socket(to)?;
    while !done.stop.load(Ordering::Relaxed) {
        datagram(&socket, to)?;
        done.datagrams.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    Ok(socket)
}

fn datagram(socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    socket.send_to(b"?", to)?;
    let (_, from) = socket.recv_from(&mut [0; 64])?;
    if from != to {
        return Err(io::Error::other(format!("{from} has answered")));
    }
    Ok(())
}

/// Clients on a machine outside, which use node ports of the first node.
pub(crate) struct Outside {
    clients: Clients,
    netns: PathBuf,
    node_ports: Vec<SocketAddr>,
}

impl Outside {
    pub(crate) fn start(topology: &NodesAndClient) -> Self {
        let of = |address: &IpAddr| SocketAddr::new(*address, NODE_PORT);
        let node_ports: Vec<SocketAddr> = topology.a.addresses.iter().map(of).collect();
        let netns = topology.client.netns.path();
        Self { clients: Clients::start(&netns, &node_ports, &node_ports), netns, node_ports }
    }

    /// Waits for some more connections.
    pub(crate) fn some_more(&self) {
        let done = &self.clients.done;
        let than = done.connections.load(Ordering::Relaxed) + BETWEEN;
        eventually("traffic", || {
            let failed = done.failed.lock().expect("no panic").clone();
            assert_eq!(failed, None, "a client outside failed after {done}");
            (done.connections.load(Ordering::Relaxed) >= than).then_some(())
        });
    }

    /// Whoever connects now is answered by this backend.
    pub(crate) fn everybody_gets(&self, backend: &str) {
        run_in(&self.netns, || {
            for to in &self.node_ports {
                for _ in 0..BETWEEN {
                    let answer = connect(*to).and_then(|mut stream| ask(&mut stream)).expect("an answer");
                    assert_eq!(answer, backend, "{to}");
                }
            }
        });
    }

    /// Ends the clients; what they have done.
    pub(crate) fn stop(self) -> String {
        let done = self.clients.stop();
        assert_eq!(*done.failed.lock().expect("no panic"), None, "a client outside failed");
        done.to_string()
    }
}

/// Clients that are processes of a node: in a process of their own, because hooks know sockets by their process's cgroup.
pub(crate) struct Inside {
    process: Child,
}

impl Inside {
    pub(crate) fn start(proxy: &Proxy, node: &Node) -> Result<Self> {
        let cgroup = proxy.cgroup().join("clients");
        fs::create_dir_all(&cgroup)?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--exact", "clients_inside", "--ignored", "--nocapture"])
            .env(NETNS, node.netns.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the clients inside")?;
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string())?;
        process.stdin.as_mut().context("it has an input")?.write_all(b"go\n")?;
        Ok(Self { process })
    }

    /// Ends the clients; what they have done.
    pub(crate) fn stop(mut self) -> Result<String> {
        drop(self.process.stdin.take());
        let mut said = String::new();
        self.process.stdout.take().context("it has an output")?.read_to_string(&mut said)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "a client inside failed:\n{said}");
        let line = said.lines().find_map(|line| Some(line.split_once("clients: ")?.1.to_owned()));
        line.with_context(|| format!("the clients inside say nothing of what they did:\n{said}"))
    }
}

/// The process of [`Inside`]: waits for a line, loads until its input ends.
pub(crate) fn clients_inside() {
    let netns = PathBuf::from(std::env::var_os(NETNS).expect("it is started by a test"));
    let mut input = BufReader::new(io::stdin());
    input.read_line(&mut String::new()).expect("it is told to go");
    let clients = Clients::start(&netns, &addresses(HTTP), &addresses(DNS));
    input.read_to_end(&mut Vec::new()).expect("the input ends");
    let done = clients.stop();
    assert_eq!(*done.failed.lock().expect("no panic"), None);
    println!("clients: {done}");
}
