//! One upstream server: a question over UDP from a fresh port, over TCP when the answer did not fit.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use fairlead_zone::Question;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::{
    codec::{TCP_MAX, UDP_MAX_EDNS},
    relay::{Reply, ReplyError},
};

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
    /// A connection.
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
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer is malformed")]
    Malformed,
}

/// An upstream server.
pub(crate) struct Upstream {
    config: UpstreamConfig,
}

impl Upstream {
    pub(crate) fn new(config: UpstreamConfig) -> Self {
        Self { config }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.config.address
    }

    /// Asks once. Who drops the future gives up.
    pub(crate) async fn exchange(&self, inquiry: &Inquiry, via: Via) -> Result<Reply, UpstreamError> {
        let plain = matches!(self.config.transport, UpstreamTransport::Plain);
        let asking = async {
            match via {
                Via::Udp if plain => self.over_udp(inquiry).await,
                Via::Udp | Via::Tcp => self.over_tcp(inquiry).await,
            }
        };
        timeout(self.config.read_timeout, asking).await.unwrap_or(Err(UpstreamError::Timeout))
    }

    async fn over_udp(&self, inquiry: &Inquiry) -> Result<Reply, UpstreamError> {
        let any: SocketAddr = if self.config.address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        // A fresh socket has a random port, and a connected one takes answers from the server's address only.
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.config.address).await?;
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
        let mut stream = TcpStream::connect(self.config.address).await?;
        let id = rand::random();
        let message = inquiry.to_bytes(id);
        let length = u16::try_from(message.len()).map_err(|_| UpstreamError::Malformed)?;
        stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(length).min(TCP_MAX)];
        stream.read_exact(&mut bytes).await?;
        Reply::parse(&bytes, id, &inquiry.question).map_err(|_| UpstreamError::Malformed)
    }
}

impl Inquiry {
    fn to_bytes(&self, id: u16) -> Vec<u8> {
        let name = self.question.name.as_wire();
        let mut bytes = Vec::with_capacity(27 + name.len());
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&[
            u8::from(self.recursion_desired),
            u8::from(self.authentic_data) << 5 | u8::from(self.checking_disabled) << 4,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            1,
        ]);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&self.question.rtype.0.to_be_bytes());
        bytes.extend_from_slice(&self.question.class.0.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&UDP_MAX_EDNS.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, u8::from(self.dnssec_ok) << 7, 0]);
        bytes.extend_from_slice(&u16::try_from(self.options.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&self.options);
        bytes
    }
}
