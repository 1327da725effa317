//! A feed on a Unix socket that tells what a benchmark or a test says.

use std::{path::Path, pin::Pin, sync::Arc};

use anyhow::{Context, Result};
use fairlead_model::Update;
use fairlead_wire::{
    proto::{WatchRequest, WatchResponse, feed_server},
    responses,
};
use futures::{Stream, StreamExt, stream};
use tokio::{net::UnixListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status, transport::Server};

/// Tells its readers of a snapshot and then of changes; who comes back is told everything again.
pub struct ScriptedFeed {
    updates: watch::Sender<Vec<Arc<Update>>>,
    _runtime: Runtime,
}

/// Every reader gets a list of its own at each change, so the list must be cheap to copy.
struct Service(watch::Receiver<Vec<Arc<Update>>>);

impl ScriptedFeed {
    /// Listens on a socket.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn start(socket: &Path, snapshot: Update) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (updates, receiver) = watch::channel(vec![Arc::new(snapshot)]);
        let listener = runtime.block_on(async { UnixListener::bind(socket) });
        let listener = listener.with_context(|| format!("cannot listen on {}", socket.display()))?;
        let service = feed_server::FeedServer::new(Service(receiver));
        runtime.spawn(
            Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Ok(Self { updates, _runtime: runtime })
    }

    /// Tells of a change.
    pub fn send(&self, update: Update) {
        self.updates.send_modify(|updates| updates.push(Arc::new(update)));
    }
}

#[tonic::async_trait]
impl feed_server::Feed for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut sent = 0;
        let batches = WatchStream::new(self.0.clone()).map(move |updates| {
            let new = updates[sent..].to_vec();
            sent = updates.len();
            let responses = |update: Arc<Update>| responses(Arc::unwrap_or_clone(update));
            stream::iter(new.into_iter().flat_map(responses).map(Ok))
        });
        Ok(Response::new(Box::pin(batches.flatten())))
    }
}
