//! From the ring buffer to the recent flows.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use fairlead_abi::event::FlowEvent;
use fairlead_flows::{Clock, Enricher, Recent, decode};
use fairlead_kernel::{Events, clock::monotonic_ns};
use tokio_util::sync::CancellationToken;

use crate::{AgentError, cluster::Cluster};

/// Reads records, finds names for them and remembers them.
#[derive(Debug)]
pub(crate) struct FlowPump {
    pub(crate) node: String,
    pub(crate) events: Events,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) recent: Arc<Recent>,
    /// Records that could not be read.
    pub(crate) malformed: Arc<AtomicU64>,
}

impl FlowPump {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let mut records: Vec<FlowEvent> = Vec::new();
        loop {
            let malformed = &self.malformed;
            let read = self.events.read(|bytes| match decode(bytes) {
                Ok(event) => records.push(event),
                Err(_) => drop(malformed.fetch_add(1, Ordering::Relaxed)),
            });
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                read = read => read.map_err(AgentError::Events)?,
            };
            self.publish(&mut records);
        }
    }

    fn publish(&self, records: &mut Vec<FlowEvent>) {
        let clock = Clock::now(monotonic_ns());
        let flows: Vec<_> = self.cluster.read(|inner| {
            let enricher =
                Enricher { node: &self.node, view: &inner.view, directory: &inner.directory, clock };
            records.drain(..).map(|event| enricher.flow(&event)).collect()
        });
        flows.into_iter().for_each(|flow| self.recent.push(flow));
    }
}
