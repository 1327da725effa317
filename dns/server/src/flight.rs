//! The same question is asked once at a time: who asks it meanwhile gets the same answer.
//!
//! Those who ask may be on different threads, each with a runtime of its own that may end before the others. So a question
//! is a task of the runtime of whoever asked first, and the others only wait for it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio_util::task::AbortOnDropHandle;

/// Nothing when the thread of whoever asked has ended.
type Flight<V> = BoxFuture<'static, Option<V>>;

/// Questions that are being asked. One whose askers are all gone is given up, and cannot be joined any more.
pub(crate) struct Flights<K, V> {
    flights: Arc<Mutex<HashMap<K, WeakShared<Flight<V>>>>>,
}

/// Takes a question off the list when it is answered or given up.
struct Landing<K: Hash + Eq, V> {
    flights: Arc<Mutex<HashMap<K, WeakShared<Flight<V>>>>>,
    key: K,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self { flights: Arc::default() }
    }

    /// Joins those who are asking, or asks. Gives nothing when the one who asked cannot go on: then one has to ask
    /// oneself.
    pub(crate) fn join<F>(&self, key: K, ask: impl FnOnce() -> F) -> Shared<Flight<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let landing = Landing { flights: Arc::clone(&self.flights), key: key.clone() };
        let asking = AbortOnDropHandle::new(tokio::spawn(ask()));
        let flight = async move {
            let _landing = landing;
            match asking.await {
                Ok(value) => Some(value),
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_cancelled) => None,
                },
            }
        };
        let flight = flight.boxed().shared();
        flights.extend(flight.downgrade().map(|weak| (key, weak)));
        flight
    }
}

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::{runtime::Builder, time::sleep};

    use super::*;

    /// Longer than any test.
    const LONG: std::time::Duration = std::time::Duration::from_secs(3600);

    #[tokio::test]
    async fn a_question_is_asked_once_and_given_up_with_its_last_asker() {
        let (flights, asked) = (Flights::new(), Arc::new(AtomicUsize::new(0)));
        let alive = Arc::new(());
        let ask = || {
            let (asked, alive) = (Arc::clone(&asked), Arc::clone(&alive));
            async move {
                let _alive = alive;
                asked.fetch_add(1, Relaxed);
                sleep(LONG).await;
            }
        };
        let mut askers = [flights.join(1, ask), flights.join(1, ask)];
        assert!((&mut askers[0]).now_or_never().is_none());
        while asked.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!((&mut askers[1]).now_or_never().is_none());
        assert_eq!((asked.load(Relaxed), Arc::strong_count(&alive)), (1, 2));
        drop(askers);
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(flights.flights.lock().unwrap().is_empty());
    }

    #[test]
    fn who_joined_learns_that_the_runtime_of_who_asked_has_ended() {
        let flights = Flights::new();
        let [first, second] = [(); 2].map(|()| Builder::new_current_thread().enable_all().build().unwrap());
        let ask = || async {
            sleep(LONG).await;
            7
        };
        let inside = first.enter();
        let asker = flights.join(1, ask);
        // Its clock is the first runtime's.
        assert!(asker.clone().now_or_never().is_none());
        drop(inside);
        let joined = flights.join(1, ask);
        drop((first, asker));
        assert_eq!(second.block_on(joined), None);
        let again = second.block_on(async { flights.join(1, || async { 8 }).await });
        assert_eq!(again, Some(8));
    }
}
