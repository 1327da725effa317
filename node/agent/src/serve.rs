//! The agent's HTTP servers: administration, health checks, metrics.

use std::time::Duration;

use axum::Router;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::AgentError;

/// How long requests may go on after the end was asked for. Half a request may stay half for ever: its client does not
/// hold up the end.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until `stop`, then at most one second more. `purpose` is said in an error.
pub(crate) async fn serve<L>(
    purpose: &'static str,
    listener: L,
    router: Router,
    stop: CancellationToken,
) -> Result<(), AgentError>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let late = async {
        stop.cancelled().await;
        sleep(GRACE).await;
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = server.into_future() => served.map_err(|source| AgentError::Serve { purpose, source }),
        () = late => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use axum::{
        body::{Body, to_bytes},
        routing::post,
    };
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
        sync::Notify,
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn a_client_that_stops_in_the_middle_of_a_request_does_not_hold_up_the_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let stop = CancellationToken::new();
        let begun = Arc::new(Notify::new());
        let begin = begun.clone();
        let router = Router::new().route(
            "/",
            post(async move |body: Body| {
                begin.notify_one();
                to_bytes(body, 9).await.unwrap_or_default()
            }),
        );
        let server = tokio::spawn(serve("a test", listener, router, stop.clone()));

        let mut client = TcpStream::connect(address).await.expect("connect");
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
            .await
            .expect("write");
        begun.notified().await;

        stop.cancel();
        // Far more than the grace: the end comes, whenever it comes.
        let ended = timeout(Duration::from_secs(60), server).await.expect("the server ends");
        ended.expect("no panic").expect("no error");
        drop(client);
    }
}
