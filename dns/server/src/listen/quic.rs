//! DNS over QUIC (RFC 9250): a stream for each question, which ends with its answer.

use std::{io, net::UdpSocket, sync::Arc, time::Duration};

use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::MESSAGE_MAX;
use crate::{
    codec::u16_at,
    handler::{Handler, Step},
    metrics::{Client, Transport},
};

/// The protocol's name in the handshake (RFC 9250 §4.1.1).
const ALPN: &[u8] = b"doq";
/// Connections of an address; CoreDNS has no limit, and memory has.
const CONNECTIONS_MAX: usize = 1024;
/// Questions of one connection at a time; CoreDNS's number.
const STREAMS_MAX: u32 = 256;
/// How long a connection may be silent, and a question take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// DOQ_NO_ERROR and DOQ_PROTOCOL_ERROR (RFC 9250 §8.4).
const NO_ERROR: VarInt = VarInt::from_u32(0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);

/// Serves an address until shutdown.
pub(super) async fn serve(
    socket: UdpSocket,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let tls = tls.ok_or_else(|| io::Error::other("QUIC needs a certificate"))?;
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(config(&tls).map_err(io::Error::other)?),
        socket,
        Arc::new(TokioRuntime),
    )?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return Ok(()) };
                if connections.len() >= CONNECTIONS_MAX {
                    handler.shed();
                    incoming.refuse();
                    continue;
                }
                connections.spawn(converse(incoming, Arc::clone(&handler)));
            }
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => {
                endpoint.close(NO_ERROR, b"");
                return Ok(());
            }
        }
    }
}

fn config(tls: &rustls::ServerConfig) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(STREAMS_MAX.into()).max_concurrent_uni_streams(0_u8.into());
    transport.max_idle_timeout(Some(IdleTimeout::try_from(PATIENCE)?));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Serves a connection until its client has enough or breaks the rules.
async fn converse(incoming: Incoming, handler: Arc<Handler>) {
    let local = incoming.local_ip();
    let Ok(connection) = incoming.await else { return };
    let peer = connection.remote_address();
    let local = local.map_or(peer, |ip| (ip, 0).into());
    let client = Client { peer, local, transport: Transport::Quic };
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => {
                let Ok(stream) = accepted else { return };
                streams.spawn(answer(connection.clone(), stream, client, Arc::clone(&handler)));
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Answers the one question of a stream: a length, a message with the id 0, and nothing behind it.
async fn answer(
    connection: Connection,
    (mut send, mut receive): (SendStream, RecvStream),
    client: Client,
    handler: Arc<Handler>,
) {
    let question = match timeout(PATIENCE, receive.read_to_end(2 + MESSAGE_MAX)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(quinn::ReadToEndError::TooLong)) => return connection.close(PROTOCOL_ERROR, b"too long"),
        Ok(Err(quinn::ReadToEndError::Read(_))) | Err(_) => return,
    };
    let Some(question) = framed(&question) else {
        return connection.close(PROTOCOL_ERROR, b"not one message with the id 0");
    };
    let mut out = Vec::new();
    let messages = match handler.start(question, client, &mut out) {
        Step::Ignore => return connection.close(PROTOCOL_ERROR, b"not a question"),
        Step::Reply(_) => vec![out],
        Step::Wait(answer) => answer.await,
    };
    for message in messages {
        let Ok(length) = u16::try_from(message.len()) else { return };
        let frame = [&length.to_be_bytes()[..], &message].concat();
        // Who does not take its answer goes without.
        if !matches!(timeout(PATIENCE, send.write_all(&frame)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = send.finish();
}

fn framed(bytes: &[u8]) -> Option<&[u8]> {
    let message = bytes.get(2..)?;
    let whole = u16_at(bytes, 0).map(usize::from) == Some(message.len());
    (whole && u16_at(message, 0) == Some(0)).then_some(message)
}
