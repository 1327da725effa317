//! One upstream server: questions out, answers in, over sockets that stay open.
//!
//! Every thread that asks has sockets of its own towards a server (a [`Lane`]), so that an answer arrives where it is
//! waited for. An answer counts only when it comes from the server's address to the port that asked, repeats the
//! question, and has its id, which is random. Who is asked, how often, and what a failure means is for `forward` to decide.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fairlead_zone::Question;
use rustls::pki_types::ServerName;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    codec::{HEADER_LEN, UDP_MAX_EDNS},
    metrics::Counter,
    relay::Reply,
};

mod port;
mod rtt;
mod stream;

use port::Ports;
use stream::Streams;

/// A question as it is sent to upstream servers.
#[derive(Clone, Debug)]
pub(crate) struct Inquiry {
    pub(crate) question: Question,
    pub(crate) recursion_desired: bool,
    pub(crate) authentic_data: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) dnssec_ok: bool,
    /// EDNS options to pass on, in wire form.
    pub(crate) options: Vec<u8>,
}

/// How a question is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Via {
    /// A datagram; not with TLS, where it is the same as [`Via::Tcp`].
    Udp,
    /// A connection that carries many questions (RFC 7766).
    Tcp,
}

/// What the bytes are wrapped in.
#[derive(Clone)]
pub(crate) enum UpstreamTransport {
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// Name that the server's certificate must hold.
        server_name: ServerName<'static>,
        /// Whom to trust.
        config: Arc<rustls::ClientConfig>,
    },
}

/// How an upstream server is reached.
#[derive(Clone)]
pub(crate) struct UpstreamConfig {
    pub(crate) address: SocketAddr,
    pub(crate) transport: UpstreamTransport,
    /// How long a socket or a connection may be of no use before it is closed.
    pub(crate) expire: Duration,
    /// How long an answer may take.
    pub(crate) read_timeout: Duration,
    /// Our own address.
    pub(crate) source: Option<IpAddr>,
    /// Asks in random case and takes only answers in the same (draft-vixie-dnsext-dns0x20).
    pub(crate) random_case: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer is malformed")]
    Malformed,
    #[error("the connection was closed")]
    Closed,
    #[error("too many questions wait for an answer")]
    Full,
}

/// An upstream server.
pub(crate) struct Upstream {
    config: Arc<UpstreamConfig>,
    /// By the number of the thread.
    lanes: RwLock<Vec<Option<Arc<Lane>>>>,
    /// Over UDP and over connections.
    reuse: [Reuse; 2],
}

/// What is counted about sockets of one kind.
#[derive(Clone, Default)]
pub(crate) struct Reuse {
    /// One was there already.
    pub(crate) hits: Arc<Counter>,
    /// One had to be opened.
    pub(crate) misses: Arc<Counter>,
    /// Questions that were asked again because their answers were late.
    pub(crate) repeats: Arc<Counter>,
}

/// The sockets of one thread towards one server.
struct Lane {
    ports: Ports,
    streams: Streams,
}

/// A question that was sent and its answer to be.
struct Asked {
    question: Question,
    /// The name must come back in exactly this case.
    exact_case: bool,
    answer: oneshot::Sender<Result<Reply, UpstreamError>>,
}

impl Upstream {
    pub(crate) fn new(config: UpstreamConfig, reuse: [Reuse; 2]) -> Self {
        Self { config: Arc::new(config), lanes: RwLock::default(), reuse }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.config.address
    }

    /// Asks once. A truncated answer is an answer. Whoever drops the future gives the question up.
    pub(crate) async fn exchange(&self, inquiry: &Inquiry, via: Via) -> Result<Reply, UpstreamError> {
        let lane = self.lane();
        let limit = self.config.read_timeout;
        let asking = async {
            match (via, &self.config.transport) {
                (Via::Udp, UpstreamTransport::Plain) => lane.ports.exchange(inquiry, &self.reuse[0]).await,
                _ => lane.streams.exchange(inquiry, &self.reuse[1]).await,
            }
        };
        timeout(limit, asking).await.unwrap_or(Err(UpstreamError::Timeout(limit)))
    }

    /// The sockets of this thread.
    fn lane(&self) -> Arc<Lane> {
        let number = thread_number();
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(number).and_then(Option::as_ref) {
            return Arc::clone(lane);
        }
        drop(lanes);
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() <= number {
            lanes.resize(number + 1, None);
        }
        let lane = lanes[number].get_or_insert_with(|| {
            Arc::new(Lane {
                ports: Ports::new(Arc::clone(&self.config)),
                streams: Streams::new(Arc::clone(&self.config)),
            })
        });
        Arc::clone(lane)
    }
}

impl Reuse {
    fn count(&self, reused: bool) {
        let counter = if reused { &self.hits } else { &self.misses };
        counter.add();
    }
}

/// A small number for each thread.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

impl Asked {
    /// The question, and where its answer will be.
    fn new(
        question: Question,
        config: &UpstreamConfig,
    ) -> (Self, oneshot::Receiver<Result<Reply, UpstreamError>>) {
        let (answer, receiver) = oneshot::channel();
        (Self { question, exact_case: config.random_case, answer }, receiver)
    }

    /// Reads a message as the answer to this question; nothing when it is the answer to another one.
    fn read(&self, message: &[u8], id: u16) -> Option<Result<Reply, UpstreamError>> {
        use crate::relay::ReplyError::{Malformed, Mismatch};
        let name = self.question.name.as_wire();
        if self.exact_case && message.get(HEADER_LEN..HEADER_LEN + name.len()) != Some(name) {
            return None;
        }
        match Reply::parse(message, id, &self.question) {
            Ok(reply) => Some(Ok(reply)),
            Err(Mismatch) => None,
            Err(Malformed) => Some(Err(UpstreamError::Malformed)),
        }
    }
}

impl Inquiry {
    /// The question as it is put to a server: in random case when that is asked for.
    fn question_for(&self, config: &UpstreamConfig) -> Question {
        let mut question = self.question.clone();
        if config.random_case {
            let mut wire = question.name.as_wire().to_vec();
            for byte in wire.iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
                *byte ^= rand::random::<u8>() & 0x20;
            }
            // Changing the case of letters changes no length.
            question.name = fairlead_zone::Name::from_wire(&wire).unwrap_or(question.name);
        }
        question
    }

    /// The message with an id, for a question that may differ in case.
    fn to_bytes(&self, id: u16, question: &Question) -> Vec<u8> {
        let name = question.name.as_wire();
        let mut bytes = Vec::with_capacity(29 + name.len() + self.options.len());
        bytes.extend_from_slice(&id.to_be_bytes());
        let more = u8::from(self.authentic_data) << 5 | u8::from(self.checking_disabled) << 4;
        bytes.extend_from_slice(&[u8::from(self.recursion_desired), more, 0, 1, 0, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&question.rtype.0.to_be_bytes());
        bytes.extend_from_slice(&question.class.0.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&UDP_MAX_EDNS.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, u8::from(self.dnssec_ok) << 7, 0]);
        let length = u16::try_from(self.options.len()).unwrap_or(0);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.options[..usize::from(length)]);
        bytes
    }
}

#[cfg(test)]
mod tests;
