//! The one watch on etcd. It feeds the history and the fan-out, and begins again where it was when it breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, KeyValue, WatchOptions, WatchResponse};
use tokio::time::sleep;

use super::call::{Caller, Failure, signed, unsigned};
use super::history::History;
use super::keys::Keys;
use crate::watch::Hub;
use crate::{Event, EventKind, Revision};

/// Follows everything below the prefix.
pub(super) struct Follower {
    caller: Caller,
    keys: Keys,
    hub: Arc<Hub>,
    history: Arc<History>,
}

/// Why the watch has to begin again.
enum Interruption {
    /// The connection or the member is gone; the next watch continues.
    Broken(Failure),
    /// Changes up to this revision can no longer be read.
    Gap(Revision),
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Follower {
    pub(super) fn new(caller: Caller, keys: Keys, hub: Arc<Hub>, history: Arc<History>) -> Self {
        Self { caller, keys, hub, history }
    }

    pub(super) async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.hub.published();
            match self.follow().await {
                Interruption::Gap(upto) => {
                    tracing::warn!(
                        revision = upto,
                        "etcd compacted changes that were not seen; watches begin anew"
                    );
                    self.history.restart(upto);
                    self.hub.cut_off(upto);
                    pause = PAUSE_MIN;
                }
                Interruption::Broken(failure) => {
                    if self.hub.published() > before {
                        pause = PAUSE_MIN;
                    }
                    let after = self.hub.published();
                    tracing::warn!(reason = %failure, after, ?pause, "the watch on etcd broke; it goes on after a pause");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn follow(&self) -> Interruption {
        let (start, end) = self.keys.everything();
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(signed(self.hub.published() + 1))
            .with_prev_key()
            .with_progress_notify();
        let mut stream = match self.caller.watch_client().watch(start, Some(options)).await {
            Ok(stream) => stream,
            Err(error) => return Interruption::Broken(error.into()),
        };
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    if let Err(interruption) = self.receive(&response) {
                        return interruption;
                    }
                }
                Ok(None) => return Interruption::Broken(Failure::Unclear("it was closed".to_owned())),
                Err(error) => return Interruption::Broken(error.into()),
            }
        }
    }

    fn receive(&self, response: &WatchResponse) -> Result<(), Interruption> {
        if response.compact_revision() > 0 {
            return Err(Interruption::Gap(unsigned(response.compact_revision())));
        }
        if response.canceled() {
            return Err(Interruption::Broken(Failure::Unclear(response.cancel_reason().to_owned())));
        }
        let events =
            response.events().iter().filter_map(|event| self.event(event)).collect::<Result<Vec<_>, _>>()?;
        if !events.is_empty() {
            self.history.push(&events);
            self.hub.publish(&events);
        } else if !response.created() && response.events().is_empty() {
            // Progress: etcd has sent everything up to here.
            self.hub.advance(unsigned(response.header().map_or(0, etcd_client::ResponseHeader::revision)));
        }
        Ok(())
    }

    /// None for a key that is not text and so not of this store.
    fn event(&self, event: &etcd_client::Event) -> Option<Result<Arc<Event>, Interruption>> {
        let stored = event.kv()?;
        let key = self.keys.inside(stored.key())?;
        let revision = unsigned(stored.mod_revision());
        let kind = match event.event_type() {
            EventType::Delete => EventKind::Deleted,
            EventType::Put if stored.create_revision() == stored.mod_revision() => EventKind::Created,
            EventType::Put => EventKind::Updated,
        };
        let bytes = |stored: &KeyValue| Bytes::copy_from_slice(stored.value());
        let previous = event.prev_kv().map(bytes).filter(|_| kind != EventKind::Created);
        // etcd leaves it out when the revision before was compacted meanwhile.
        if previous.is_none() && kind != EventKind::Created {
            return Some(Err(Interruption::Gap(revision)));
        }
        let value = (kind != EventKind::Deleted).then(|| bytes(stored));
        Some(Ok(Arc::new(Event { revision, kind, key, value, previous })))
    }
}
