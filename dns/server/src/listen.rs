//! Addresses that are answered on: their sockets, bound here or inherited, and who serves them.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    DnsError,
    corefile::Scheme,
    handler::Handler,
    metrics::{Family, Registry},
};

mod batch;
mod connection;
mod https;
mod pace;
mod quic;
mod send;
mod tcp;
mod train;
mod udp;
mod waiting;

pub(crate) use batch::{BATCH, Batch, set_receive_queue, watch};
pub(crate) use send::send;

const KERNEL_DROPS: Family = Family {
    name: "fairlead_dns_kernel_dropped_total",
    help: "Questions that the queues of the sockets of an address had no room for.",
};

/// Larger than any question, and than any answer of another server over UDP.
pub(crate) const MESSAGE_MAX: usize = 4096;
/// Queue of a socket in the kernel: the questions of some tenths of a second, for the time that a successor needs.
const RECEIVE_QUEUE_BYTES: i32 = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address to answer on.
#[derive(Clone)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) scheme: Scheme,
    /// Certificate and key, where the scheme needs them.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// UDP sockets, each with a thread; the kernel spreads clients over them. An inherited address has as many as there
    /// are.
    pub(crate) workers: usize,
    pub(crate) inherited: Inherited,
}

/// Sockets that a predecessor or a supervisor left open, so that nothing that arrives meanwhile is lost.
#[derive(Clone, Debug, Default)]
pub struct Inherited(Arc<Mutex<Vec<Socket>>>);

/// Sockets of one address.
pub(crate) struct Bound {
    listen: Listen,
    address: SocketAddr,
    udp: Vec<UdpSocket>,
    /// None with QUIC.
    tcp: Option<TcpListener>,
}

impl Inherited {
    /// Any bound UDP sockets and listening TCP sockets.
    pub fn new(sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        Self(Arc::new(Mutex::new(sockets.into_iter().map(Socket::from).collect())))
    }

    /// Takes the sockets of an address.
    fn take(&self, address: SocketAddr, kind: Type) -> Vec<Socket> {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let matches = |socket: &mut Socket| {
            let bound = socket.local_addr().ok().and_then(|bound| bound.as_socket());
            socket.r#type().is_ok_and(|own| own == kind) && bound == Some(address)
        };
        sockets.extract_if(.., matches).collect()
    }
}

/// Sockets of an address for DNS servers to inherit, one after the other. Whoever holds them meanwhile loses nothing.
pub fn open_sockets(address: SocketAddr, workers: usize) -> Result<Vec<OwnedFd>, DnsError> {
    let inherited = Inherited::default();
    let bound = bind(&Listen { address, scheme: Scheme::Dns, tls: None, workers, inherited })?;
    Ok(bound.tcp.into_iter().map(OwnedFd::from).chain(bound.udp.into_iter().map(OwnedFd::from)).collect())
}

/// How often a port of the kernel's choice is chosen anew.
const CHOICES_MAX: usize = 32;

/// Binds the sockets of an address. A port that the kernel chose for TCP may be somebody's for UDP: then it chooses again.
pub(crate) fn bind(listen: &Listen) -> Result<Bound, DnsError> {
    let taken = |result: &Result<Bound, DnsError>| matches!(result, Err(DnsError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse);
    let choices = if listen.address.port() == 0 { CHOICES_MAX } else { 1 };
    let mut bound = bind_once(listen);
    for _ in 1..choices {
        if !taken(&bound) {
            break;
        }
        bound = bind_once(listen);
    }
    bound
}

/// TCP first, because it is the one that fails when another server is there.
fn bind_once(listen: &Listen) -> Result<Bound, DnsError> {
    let failure =
        |protocol| move |source| DnsError::Bind { address: listen.address, protocol, purpose: "DNS", source };
    if listen.scheme == Scheme::Quic {
        let udp = udp_socket(listen.address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(UdpSocket::from(socket))
        });
        let udp = udp.map_err(failure("QUIC"))?;
        let address = udp.local_addr().map_err(failure("QUIC"))?;
        return Ok(Bound { listen: listen.clone(), address, udp: vec![udp], tcp: None });
    }
    let tcp = bind_tcp(listen).map_err(failure("TCP"))?;
    let address = tcp.local_addr().map_err(failure("TCP"))?;
    let udp = match listen.scheme {
        Scheme::Dns => bind_udp(listen, address).map_err(failure("UDP"))?,
        Scheme::Tls | Scheme::Https | Scheme::Quic => Vec::new(),
    };
    Ok(Bound { listen: listen.clone(), address, udp, tcp: Some(tcp) })
}

fn bind_tcp(listen: &Listen) -> io::Result<TcpListener> {
    let inherited = listen.inherited.take(listen.address, Type::STREAM).into_iter().next();
    let socket = match inherited {
        Some(socket) => socket,
        None => {
            let socket = Socket::new(Domain::for_address(listen.address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            set_family(&socket, listen.address)?;
            socket.bind(&listen.address.into())?;
            socket.listen(BACKLOG)?;
            socket
        }
    };
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_udp(listen: &Listen, address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = listen.inherited.take(address, Type::DGRAM);
    if sockets.is_empty() {
        let bound = (0..listen.workers.max(1)).map(|_| udp_socket(address));
        sockets = bound.collect::<io::Result<_>>()?;
    }
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        // A socket of one address was asked there and answers from there; looking that up again costs for nothing.
        if address.ip().is_unspecified() {
            batch::ask_for_destination(socket.as_fd(), address.is_ipv6())?;
        }
        batch::set_receive_queue(socket.as_fd(), RECEIVE_QUEUE_BYTES);
    }
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    set_family(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Each family has sockets of its own, the wildcard addresses too.
fn set_family(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_only_v6(true) } else { Ok(()) }
}

impl Bound {
    /// The bound address; it differs from the one asked for when that had port 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts what its queues have no room for, for as long as it is served. The descriptors are copies, so that whoever
    /// asks for metrics needs nothing of the workers.
    fn watch_drops(&self, registry: &Registry) -> Arc<[OwnedFd]> {
        let copies = self.udp.iter().filter_map(|socket| socket.as_fd().try_clone_to_owned().ok());
        let sockets: Arc<[OwnedFd]> = copies.collect();
        let (watched, last) = (Arc::downgrade(&sockets), AtomicU64::new(0));
        registry.read_counter(&KERNEL_DROPS, &[("address", &self.address.to_string())], move || {
            if let Some(sockets) = watched.upgrade() {
                last.store(sockets.iter().map(|socket| batch::kernel_drops(socket.as_fd())).sum(), Relaxed);
            }
            last.load(Relaxed)
        });
        sockets
    }

    /// Serves until shutdown or until a socket fails.
    pub(crate) async fn serve(
        self,
        handler: Arc<Handler>,
        registry: Arc<Registry>,
        shutdown: CancellationToken,
    ) -> Result<(), DnsError> {
        let address = self.address;
        let _watched = self.watch_drops(&registry);
        let stop = shutdown.child_token();
        // Threads cannot be dropped as tasks can: they end when this future does, however that ends.
        let _guard = stop.clone().drop_guard();
        let mut parts: JoinSet<Result<(), DnsError>> = JoinSet::new();
        let failure = move |protocol| move |source| DnsError::Socket { address, protocol, source };
        let (workers, tls) = (self.udp.len(), self.listen.tls);
        for socket in self.udp {
            let (handler, stop, tls) = (Arc::clone(&handler), stop.clone(), tls.clone());
            if self.listen.scheme == Scheme::Quic {
                let serving = quic::serve(socket, tls, handler, stop);
                parts.spawn(async move { serving.await.map_err(failure("QUIC")) });
            } else {
                parts
                    .spawn_blocking(move || udp::run(socket, workers, handler, stop).map_err(failure("UDP")));
            }
        }
        let speech = match self.listen.scheme {
            Scheme::Dns | Scheme::Quic => tcp::Speech::Plain,
            Scheme::Tls => tcp::Speech::Tls,
            Scheme::Https => tcp::Speech::Https,
        };
        if let Some(listener) = self.tcp {
            let serving = tcp::serve(listener, speech, tls, handler, stop.clone());
            parts.spawn(async move { serving.await.map_err(failure("TCP")) });
        }
        let mut result = Ok(());
        while let Some(ended) = parts.join_next().await {
            // A panic in one loop ends the server: its supervisor starts a whole one again.
            let ended = match ended.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(ended) => ended,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Err(Err(_cancelled)) => Ok(()),
            };
            result = result.and(ended);
            stop.cancel();
        }
        result
    }
}

/// Errors of one datagram that say nothing about the socket.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable | WouldBlock
    )
}
