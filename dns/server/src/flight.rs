//! The same question is asked once at a time: who asks it meanwhile gets the same answer.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

type Flight<V> = BoxFuture<'static, V>;

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

    /// Joins those who are asking, or asks.
    pub(crate) fn join<F>(&self, key: K, ask: impl FnOnce() -> F) -> Shared<Flight<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let landing = Landing { flights: Arc::clone(&self.flights), key: key.clone() };
        let asking = ask();
        let flight = async move {
            let _landing = landing;
            asking.await
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
