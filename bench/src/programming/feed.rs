//! A feed on a Unix socket that tells what the benchmark says.

use std::{path::Path, pin::Pin};

use anyhow::{Context, Result};
use fairlead_model::Update;
use fairlead_wire::{
    proto::{WatchRequest, WatchResponse, feed_server},
    responses,
};
use futures::{Stream, StreamExt, stream};
use tokio::{
    net::UnixListener,
    runtime::Runtime,
    sync::{Mutex, mpsc},
};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, transport::Server};

/// Tells one reader of a snapshot and then of changes.
pub(super) struct ScriptedFeed {
    updates: mpsc::UnboundedSender<Update>,
    _runtime: Runtime,
}

struct Service(Mutex<Option<mpsc::UnboundedReceiver<Update>>>);

impl ScriptedFeed {
    pub(super) fn start(socket: &Path, snapshot: Update) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (updates, receiver) = mpsc::unbounded_channel();
        updates.send(snapshot).context("the feed has ended")?;
        let listener = runtime.block_on(async { UnixListener::bind(socket) });
        let listener = listener.with_context(|| format!("cannot listen on {}", socket.display()))?;
        let service = feed_server::FeedServer::new(Service(Mutex::new(Some(receiver))));
        runtime.spawn(
            Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Ok(Self { updates, _runtime: runtime })
    }

    pub(super) fn send(&self, update: Update) {
        // The reader may be gone; then the benchmark waits in vain and says so.
        let _ = self.updates.send(update);
    }
}

#[tonic::async_trait]
impl feed_server::Feed for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let updates = self.0.lock().await.take();
        let updates = updates.ok_or_else(|| Status::unavailable("this feed has one reader only"))?;
        let messages = UnboundedReceiverStream::new(updates)
            .flat_map(|update| stream::iter(responses(update).into_iter().map(Ok).collect::<Vec<_>>()));
        Ok(Response::new(Box::pin(messages)))
    }
}
