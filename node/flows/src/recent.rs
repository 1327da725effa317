//! The last flows, and who wants to hear of new ones.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use fairlead_model::Flow;
use tokio::sync::broadcast;

/// How far a follower may fall behind before it misses flows, which it is told.
const FOLLOWER_LAG_MAX: usize = 1_024;

/// A bounded memory of flows; the oldest goes first.
#[derive(Debug)]
pub struct Recent {
    flows: Mutex<VecDeque<Arc<Flow>>>,
    capacity: usize,
    followers: broadcast::Sender<Arc<Flow>>,
}

impl Recent {
    /// Remembers up to `capacity` flows.
    pub fn new(capacity: usize) -> Self {
        let (followers, _) = broadcast::channel(FOLLOWER_LAG_MAX);
        Self { flows: Mutex::new(VecDeque::with_capacity(capacity.min(1_024))), capacity, followers }
    }

    /// Adds a flow and tells the followers.
    pub fn push(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut flows = self.lock();
        if flows.len() == self.capacity {
            flows.pop_front();
        }
        flows.push_back(Arc::clone(&flow));
        // Without followers there is nobody to tell. Sent under the lock, so that a follower sees the order of `flows`.
        let _ = self.followers.send(flow);
    }

    /// What is remembered, oldest first, and what comes after it, without a gap.
    pub fn follow(&self) -> (Vec<Arc<Flow>>, broadcast::Receiver<Arc<Flow>>) {
        let flows = self.lock();
        (flows.iter().cloned().collect(), self.followers.subscribe())
    }

    /// What is remembered, oldest first.
    pub fn list(&self) -> Vec<Arc<Flow>> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Flow>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use fairlead_model::{FlowEnd, FlowState, Protocol, Verdict};

    use super::*;

    fn flow(time_unix_ns: u64) -> Flow {
        let end = || FlowEnd { address: ([127, 0, 0, 1], 1).into(), pod: None, node: None };
        Flow {
            time_unix_ns,
            duration_ns: 0,
            node: String::new(),
            state: FlowState::Ended,
            protocol: Protocol::Tcp,
            source: end(),
            destination: end(),
            service: None,
            verdict: Verdict::Forwarded,
            bytes_sent: 0,
            bytes_received: 0,
            rtt_us: 0,
            retransmits: 0,
            seen_by_source: true,
        }
    }

    #[test]
    fn the_oldest_flows_are_forgotten_and_a_follower_misses_nothing() {
        let recent = Recent::new(2);
        recent.push(flow(1));
        recent.push(flow(2));
        recent.push(flow(3));
        let (known, mut new) = recent.follow();
        recent.push(flow(4));
        let times: Vec<u64> = known.iter().map(|flow| flow.time_unix_ns).collect();
        assert_eq!(times, [2, 3]);
        assert_eq!(new.try_recv().map(|flow| flow.time_unix_ns), Ok(4));
        assert!(new.try_recv().is_err());
    }
}
