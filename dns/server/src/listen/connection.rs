//! One connection of frames with a length (RFC 7766): questions are taken as they come, and answered in the order in
//! which their answers are ready.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{
    handler::{Handler, Step},
    metrics::Client,
};

/// Questions of one connection that may wait at a time; then it is not read any more.
const WAITING_MAX: usize = 64;
/// How long a connection may be silent, or not take an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection until it ends, is silent for too long, or sends what is no question.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite,
    client: Client,
    handler: &Arc<Handler>,
) -> io::Result<()> {
    let stream = std::pin::pin!(stream);
    let codec = LengthDelimitedCodec::builder().length_field_length(2).new_codec();
    let (mut sink, mut frames) = Framed::new(stream, codec).split();
    let mut waiting = FuturesUnordered::new();
    let mut out = Vec::new();
    let mut open = true;
    let mut idle_at = Instant::now() + IDLE_TIMEOUT;
    while open || !waiting.is_empty() {
        tokio::select! {
            frame = frames.next(), if open && waiting.len() < WAITING_MAX => {
                let Some(frame) = frame.transpose()? else {
                    open = false;
                    continue;
                };
                match handler.start(&frame, client, &mut out) {
                    Step::Ignore => return Ok(()),
                    Step::Reply(_) => timeout(IDLE_TIMEOUT, sink.send(Bytes::copy_from_slice(&out))).await??,
                    Step::Wait(answer) => waiting.push(answer),
                }
            }
            Some(messages) = waiting.next() => {
                for message in messages {
                    timeout(IDLE_TIMEOUT, sink.send(Bytes::from(message))).await??;
                }
            }
            () = sleep_until(idle_at), if waiting.is_empty() => return Ok(()),
        }
        idle_at = Instant::now() + IDLE_TIMEOUT;
    }
    Ok(())
}
