//! The TCP loop (RFC 7766): frames with a length, answered in the order they become ready, not in the order they came.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{
    codec::{Framed, LengthDelimitedCodec},
    sync::CancellationToken,
};

use crate::{
    handler::{Handler, Step},
    metrics::{Client, Transport},
};

/// Connections per address; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Questions of one connection that may wait at a time; then it is not read any more.
const WAITING_MAX: usize = 64;
/// How long a connection may be silent, or not take an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds a listener. Without SO_REUSEPORT, so that a second server on the same address is an error.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Accepts connections until shutdown.
pub(crate) async fn serve(listener: TcpListener, handler: Arc<Handler>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        tokio::select! {
            (slot, accepted) = accept => match accepted {
                Ok((stream, peer)) => {
                    let handler = Arc::clone(&handler);
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, peer, &handler).await {
                            tracing::debug!(%peer, %error, "TCP connection ended");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a TCP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, handler: &Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let client = Client { peer, local: stream.local_addr()?, transport: Transport::Tcp };
    let codec = LengthDelimitedCodec::builder().length_field_length(2).new_codec();
    let (mut sink, mut frames) = Framed::new(stream, codec).split();
    let mut waiting = FuturesUnordered::new();
    let mut out = Vec::new();
    let mut open = true;
    let mut idle_at = Instant::now() + IDLE_TIMEOUT;
    while open || !waiting.is_empty() {
        let answer = tokio::select! {
            frame = frames.next(), if open && waiting.len() < WAITING_MAX => {
                let Some(frame) = frame.transpose()? else {
                    open = false;
                    continue;
                };
                idle_at = Instant::now() + IDLE_TIMEOUT;
                match handler.start(&frame, client, &mut out) {
                    Step::Ignore => return Ok(()),
                    Step::Reply(_) => vec![Bytes::copy_from_slice(&out)],
                    Step::Wait(pending) => {
                        waiting.push(async move {
                            pending.await.into_iter().map(Bytes::from).collect::<Vec<_>>()
                        });
                        continue;
                    }
                }
            }
            Some(answer) = waiting.next() => answer,
            () = sleep_until(idle_at), if waiting.is_empty() => return Ok(()),
        };
        for message in answer {
            timeout(IDLE_TIMEOUT, sink.send(message)).await??;
        }
        idle_at = Instant::now() + IDLE_TIMEOUT;
    }
    Ok(())
}
