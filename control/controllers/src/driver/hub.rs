//! Where changes of objects become keys in queues.

use std::{fmt::Debug, future, sync::Arc};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cached, Caches, Slim, Touched};

/// Told of every change.
type Listener = Box<dyn Fn(&Caches, &Touched) + Send + Sync>;

/// The caches and who wants to hear of their changes.
#[derive(Default)]
pub struct Hub {
    /// What is known.
    pub caches: Caches,
    listeners: Vec<Listener>,
}

impl Hub {
    /// Adds a listener; before the hub is shared.
    pub fn listen(&mut self, listener: impl Fn(&Caches, &Touched) + Send + Sync + 'static) {
        self.listeners.push(Box::new(listener));
    }

    /// Tells the listeners.
    pub fn publish(&self, touched: &Touched) {
        for listener in &self.listeners {
            listener(&self.caches, touched);
        }
    }

    /// Keeps the cache of one kind true until the shutdown.
    pub async fn watch<K>(self: Arc<Self>, client: Client, shutdown: CancellationToken)
    where
        K: Cached + Slim + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let events = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
        let observing = events.for_each(|event| {
            match event {
                Ok(event) => {
                    for changed in K::cache(&self.caches).observe(event) {
                        self.publish(&K::touched(changed));
                    }
                }
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "a controllers' watch is interrupted; it is resumed");
                }
            }
            future::ready(())
        });
        tokio::select! {
            () = observing => {}
            () = shutdown.cancelled() => {}
        }
    }
}
