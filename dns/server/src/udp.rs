//! The UDP loop: several sockets per address, one task each; the kernel spreads clients over them.

use std::{io, net::SocketAddr, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::{
    DnsError,
    handler::{Handler, Step},
    metrics::{Client, Transport},
};

/// Larger than any question; what is longer is cut, and then malformed.
const PACKET_MAX: usize = 4096;
/// Queue of a socket in the kernel; the default holds a few hundred questions.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Binds the sockets of one address. With port 0 all get the port that the first one got.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let first = bind_one(address)?;
    let address = first.local_addr()?;
    let rest = (1..count).map(|_| bind_one(address));
    std::iter::once(Ok(first)).chain(rest).collect()
}

fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // The kernel caps it at net.core.rmem_max; less is a smaller queue, not an error.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers on one socket until shutdown.
pub(crate) async fn serve(
    socket: UdpSocket,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
) -> Result<(), DnsError> {
    let address = socket.local_addr().map_err(|source| failure(None, source))?;
    let mut packet = [0; PACKET_MAX];
    let mut out = Vec::with_capacity(PACKET_MAX);
    let mut waiting: FuturesUnordered<BoxFuture<'_, (Option<Vec<u8>>, SocketAddr)>> = FuturesUnordered::new();
    loop {
        let (size, peer) = tokio::select! {
            received = socket.recv_from(&mut packet) => match received {
                Ok(received) => received,
                Err(error) if is_transient(&error) => continue,
                Err(source) => return Err(failure(Some(address), source)),
            },
            Some((answer, peer)) = waiting.next() => {
                if let Some(answer) = answer {
                    send(&socket, &answer, peer, &handler).await;
                }
                continue;
            }
            () = shutdown.cancelled() => return Ok(()),
        };
        let client = Client { peer, local: address, transport: Transport::Udp };
        match handler.start(&packet[..size], client, &mut out) {
            Step::Ignore => {}
            Step::Reply(_) => send(&socket, &out, peer, &handler).await,
            Step::Wait(pending) => {
                let finish = async move { (pending.await.into_iter().next(), peer) };
                waiting.push(finish.boxed());
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr, handler: &Handler) {
    if let Err(error) = socket.send_to(answer, peer).await {
        tracing::debug!(%peer, %error, "cannot send an answer");
        handler.drop_packet();
    }
}

/// Errors of one packet that say nothing about the socket.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable | WouldBlock
    )
}

fn failure(address: Option<SocketAddr>, source: io::Error) -> DnsError {
    let address = address.unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    DnsError::Socket { address, protocol: "UDP", source }
}
