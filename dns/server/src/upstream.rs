//! One upstream server: a question over UDP from a fresh port, over TCP when the answer did not fit.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use fairlead_zone::Question;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::{
    codec::{TCP_MAX, UDP_MAX_EDNS},
    metrics::Histogram,
    relay::{Reply, ReplyError},
};

/// How long to wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server that failed is asked last.
const PENALTY: Duration = Duration::from_secs(5);

/// A question as it is sent to upstream servers.
#[derive(Clone, Debug)]
pub(crate) struct Inquiry {
    pub(crate) question: Question,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer is malformed")]
    Malformed,
}

/// An upstream server.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) durations: Histogram,
    pub(crate) failures: AtomicU64,
    started: Instant,
    /// Milliseconds after `started` until which it is asked last.
    penalty_until: AtomicU64,
}

impl Upstream {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            durations: Histogram::durations(),
            failures: AtomicU64::new(0),
            started: Instant::now(),
            penalty_until: AtomicU64::new(0),
        }
    }

    /// Whether it failed lately.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.penalty_until.load(Ordering::Relaxed) > self.clock()
    }

    /// Asks.
    pub(crate) async fn ask(&self, inquiry: &Inquiry) -> Result<Reply, UpstreamError> {
        let began = Instant::now();
        let result = self.exchange(inquiry).await;
        if result.is_ok() {
            self.durations.observe_duration(began.elapsed());
            self.penalty_until.store(0, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
            let penalty = u64::try_from(PENALTY.as_millis()).unwrap_or(u64::MAX);
            self.penalty_until.store(self.clock().saturating_add(penalty), Ordering::Relaxed);
        }
        result
    }

    async fn exchange(&self, inquiry: &Inquiry) -> Result<Reply, UpstreamError> {
        let reply = timeout(ANSWER_TIMEOUT, self.over_udp(inquiry)).await;
        let reply = reply.map_err(|_| UpstreamError::Timeout)??;
        if !reply.truncated() {
            return Ok(reply);
        }
        // Without TCP the client still gets the truncated answer and can try TCP itself.
        match timeout(ANSWER_TIMEOUT, self.over_tcp(inquiry)).await {
            Ok(Ok(complete)) => Ok(complete),
            Ok(Err(_)) | Err(_) => Ok(reply),
        }
    }

    async fn over_udp(&self, inquiry: &Inquiry) -> Result<Reply, UpstreamError> {
        let any: SocketAddr = if self.address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        // A fresh socket has a random port, and a connected one takes answers from the server's address only.
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.address).await?;
        let id = rand::random();
        socket.send(&inquiry.to_bytes(id)).await?;
        let mut buffer = [0; UDP_MAX_EDNS as usize + 1];
        loop {
            let size = socket.recv(&mut buffer).await?;
            match Reply::parse(&buffer[..size], id, &inquiry.question) {
                Ok(reply) => return Ok(reply),
                Err(ReplyError::Mismatch) => {}
                Err(ReplyError::Malformed) => return Err(UpstreamError::Malformed),
            }
        }
    }

    async fn over_tcp(&self, inquiry: &Inquiry) -> Result<Reply, UpstreamError> {
        let mut stream = TcpStream::connect(self.address).await?;
        let id = rand::random();
        let message = inquiry.to_bytes(id);
        let length = u16::try_from(message.len()).map_err(|_| UpstreamError::Malformed)?;
        stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(length).min(TCP_MAX)];
        stream.read_exact(&mut bytes).await?;
        Reply::parse(&bytes, id, &inquiry.question).map_err(|_| UpstreamError::Malformed)
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Inquiry {
    fn to_bytes(&self, id: u16) -> Vec<u8> {
        let name = self.question.name.as_wire();
        let mut bytes = Vec::with_capacity(27 + name.len());
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&[1, u8::from(self.checking_disabled) << 4, 0, 1, 0, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&self.question.rtype.0.to_be_bytes());
        bytes.extend_from_slice(&self.question.class.0.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&UDP_MAX_EDNS.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, u8::from(self.dnssec_ok) << 7, 0, 0, 0]);
        bytes
    }
}
