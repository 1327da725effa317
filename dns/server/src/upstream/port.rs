//! UDP towards one server: a few connected sockets that are taken in turn and replaced before their ports are worth
//! guessing. A datagram may be lost, so a question whose answer is late is asked again, from another socket.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{
        Interest,
        unix::{AsyncFd, AsyncFdReadyGuard},
    },
    sync::Notify,
    time::timeout,
};

use super::{Asked, Inquiry, Reuse, UpstreamConfig, UpstreamError, rtt::Rtt};
use crate::{
    codec::u16_at,
    listen::{BATCH, Batch, MESSAGE_MAX, is_transient, send, set_receive_queue, watch},
    relay::Reply,
};

/// Sockets that are open at a time: an attacker has to guess which one asked.
const PORTS_MAX: usize = 8;
/// Questions a port is used for.
const USES_MAX: usize = 512;
/// Questions that may wait on one socket: an id is one of 65 536, and a guess must stay one.
const WAITING_MAX: usize = 512;
/// Queue of a socket in the kernel: all questions that may wait on it, answered at once.
const RECEIVE_QUEUE_BYTES: i32 = 1 << 20;
/// Batches read before others get their turn.
const ROUNDS_MAX: usize = 4;

/// What is read at once.
type Answers = Batch<MESSAGE_MAX>;

/// The sockets of one thread.
pub(super) struct Ports {
    config: Arc<UpstreamConfig>,
    open: Mutex<Open>,
    rtt: Rtt,
}

#[derive(Default)]
struct Open {
    ports: Vec<Arc<Port>>,
    current: usize,
}

/// One connected socket and what was asked on it.
struct Port {
    socket: AsyncFd<UdpSocket>,
    traffic: Mutex<Traffic>,
    /// There is something to send, or nothing left to do.
    wake: Notify,
    uses: AtomicUsize,
    opened: Instant,
    /// Nothing more is asked on it; it closes with its last answer.
    retired: AtomicBool,
}

#[derive(Default)]
struct Traffic {
    waiting: HashMap<u16, Asked>,
    outgoing: Vec<Vec<u8>>,
}

/// Takes a question off the list when nobody waits for it any more.
struct Place<'a> {
    port: &'a Port,
    id: u16,
}

impl Ports {
    pub(super) fn new(config: Arc<UpstreamConfig>) -> Self {
        Self { config, open: Mutex::default(), rtt: Rtt::default() }
    }

    /// Asks until there is an answer, for as long as the caller waits; it may be the answer to any of the askings.
    pub(super) async fn exchange(&self, inquiry: &Inquiry, reuse: &Reuse) -> Result<Reply, UpstreamError> {
        let began = Instant::now();
        let mut patience = self.rtt.patience();
        let mut first = self.ask(inquiry, reuse).boxed();
        if let Ok(answer) = timeout(patience, &mut first).await {
            if answer.is_ok() {
                self.rtt.learn(began.elapsed());
            }
            return answer;
        }
        let mut asking = FuturesUnordered::from_iter([first]);
        loop {
            reuse.repeats.add();
            asking.push(self.ask(inquiry, reuse).boxed());
            patience *= 2;
            if let Ok(Some(answer)) = timeout(patience, asking.next()).await {
                return answer;
            }
        }
    }

    /// Asks once.
    async fn ask(&self, inquiry: &Inquiry, reuse: &Reuse) -> Result<Reply, UpstreamError> {
        let port = self.pick(reuse)?;
        let (asked, answer) = Asked::new(inquiry.question_for(&self.config), &self.config);
        let place = port.ask(inquiry, asked)?;
        let answer = answer.await.unwrap_or(Err(UpstreamError::Closed));
        drop(place);
        answer
    }

    /// The socket for the next question. Questions that are asked at the same moment share one, so that they leave in one
    /// system call; the next moment takes another.
    fn pick(&self, reuse: &Reuse) -> Result<Arc<Port>, UpstreamError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let expire = self.config.expire;
        if let Some(port) = open.ports.get(open.current)
            && port.is_usable(expire)
            && !port.traffic().outgoing.is_empty()
        {
            reuse.count(true);
            return Ok(Arc::clone(port));
        }
        let index = usize::from(rand::random::<u16>()) % PORTS_MAX;
        open.current = index.min(open.ports.len());
        let found = open.ports.get(open.current).filter(|port| port.is_usable(expire));
        reuse.count(found.is_some());
        if let Some(port) = found {
            return Ok(Arc::clone(port));
        }
        let port = Port::open(&self.config)?;
        let current = open.current;
        match open.ports.get_mut(current) {
            Some(place) => std::mem::replace(place, Arc::clone(&port)).retire(),
            None => open.ports.push(Arc::clone(&port)),
        }
        Ok(port)
    }

    /// Questions that wait for an answer.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.ports.iter().map(|port| port.traffic().waiting.len()).sum()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        open.ports.iter().for_each(|port| port.retire());
    }
}

impl Port {
    /// A socket with a port of the kernel's choice, and the task that serves it until it is retired.
    fn open(config: &UpstreamConfig) -> Result<Arc<Self>, UpstreamError> {
        let any: IpAddr = if config.address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((config.source.unwrap_or(any), 0))?;
        socket.connect(config.address)?;
        socket.set_nonblocking(true)?;
        // Answers of a whole burst come at once; the usual queue holds a hundred.
        set_receive_queue(socket.as_fd(), RECEIVE_QUEUE_BYTES);
        let port = Arc::new(Self {
            socket: watch(socket)?,
            traffic: Mutex::default(),
            wake: Notify::new(),
            uses: AtomicUsize::new(0),
            opened: Instant::now(),
            retired: AtomicBool::new(false),
        });
        // Ends when the port is retired and its last question has an answer, or nobody who waits for one.
        tokio::spawn(Arc::clone(&port).serve());
        Ok(port)
    }

    fn is_usable(&self, expire: Duration) -> bool {
        self.uses.load(Ordering::Relaxed) < USES_MAX
            && self.opened.elapsed() < expire
            && !self.retired.load(Ordering::Relaxed)
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn ask(&self, inquiry: &Inquiry, asked: Asked) -> Result<Place<'_>, UpstreamError> {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let mut traffic = self.traffic();
        if traffic.waiting.len() >= WAITING_MAX {
            return Err(UpstreamError::Full);
        }
        let mut id = rand::random();
        while traffic.waiting.contains_key(&id) {
            id = rand::random();
        }
        let bytes = inquiry.to_bytes(id, &asked.question);
        traffic.waiting.insert(id, asked);
        traffic.outgoing.push(bytes);
        if traffic.outgoing.len() == 1 {
            self.wake.notify_one();
        }
        Ok(Place { port: self, id })
    }

    async fn serve(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.wake.notified() => self.flush(),
                ready = self.socket.ready(Interest::READABLE | Interest::ERROR) => match ready {
                    Ok(ready) => self.receive(ready),
                    // Only when the runtime is shutting down.
                    Err(_) => return,
                },
            }
            if self.retired.load(Ordering::Relaxed) && self.traffic().waiting.is_empty() {
                return;
            }
        }
    }

    /// Sends what was asked.
    fn flush(&self) {
        let outgoing = std::mem::take(&mut self.traffic().outgoing);
        let socket = self.socket.get_ref().as_fd();
        for chunk in outgoing.chunks(BATCH) {
            // What the kernel did not take is as good as lost on the way, and asked again by whoever retries.
            send(socket, chunk.iter().map(|bytes| (None, &bytes[..])));
        }
    }

    /// Reads answers until there are none.
    fn receive(&self, mut ready: AsyncFdReadyGuard<'_, UdpSocket>) {
        with_scratch(|batch| {
            for _ in 0..ROUNDS_MAX {
                match ready.try_io(|socket| batch.receive(socket.get_ref().as_fd())) {
                    Ok(Ok(count)) => {
                        self.answer(batch, count);
                        if count < BATCH {
                            ready.clear_ready();
                            return;
                        }
                    }
                    // The server's host says that nobody listens there: no use waiting.
                    Ok(Err(error)) => self.fail(&error),
                    Err(_would_block) => return,
                }
            }
        });
    }

    fn answer(&self, batch: &Answers, count: usize) {
        let mut traffic = self.traffic();
        for index in 0..count {
            let message = batch.packet(index);
            let Some(id) = u16_at(message, 0) else { continue };
            // What does not match is a forgery or late: the real answer may still come.
            let Some(reply) = traffic.waiting.get(&id).and_then(|asked| asked.read(message, id)) else {
                continue;
            };
            if let Some(asked) = traffic.waiting.remove(&id) {
                // Fails when nobody waits any more.
                let _ = asked.answer.send(reply);
            }
        }
    }

    fn fail(&self, error: &io::Error) {
        if !is_transient(error) {
            self.retire();
        }
        for (_, asked) in self.traffic().waiting.drain() {
            let _ = asked.answer.send(Err(UpstreamError::Io(error.kind().into())));
        }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.port.traffic().waiting.remove(&self.id);
        if self.port.retired.load(Ordering::Relaxed) {
            self.port.wake.notify_one();
        }
    }
}

/// Buffers to read into, one set per thread: nobody keeps them while waiting.
fn with_scratch(work: impl FnOnce(&mut Answers)) {
    thread_local! {
        static SCRATCH: RefCell<Option<Answers>> = const { RefCell::new(None) };
    }
    SCRATCH.with_borrow_mut(|batch| work(batch.get_or_insert_with(Answers::new)));
}
