//! From the ring buffer to the recent flows.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use fairlead_abi::event::FlowEvent;
use fairlead_flows::{Clock, Enricher, Recent, Starts, decode};
use fairlead_kernel::{Events, clock::monotonic_ns};
use tokio_util::sync::CancellationToken;

use crate::{AgentError, cluster::Cluster, network::Network};

/// Reads records, finds names for them and remembers them.
pub(crate) struct FlowPump {
    pub(crate) node: String,
    pub(crate) events: Events,
    pub(crate) cluster: Arc<Cluster>,
    /// Knows the pods of this node before the cluster does, and a moment longer.
    pub(crate) network: Arc<Network>,
    pub(crate) recent: Arc<Recent>,
    pub(crate) starts: Starts,
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

    fn publish(&mut self, records: &mut Vec<FlowEvent>) {
        records.iter_mut().for_each(|event| self.starts.join(event));
        let clock = Clock::now(monotonic_ns());
        let mut flows: Vec<_> = self.cluster.read(|inner| {
            let enricher =
                Enricher { node: &self.node, view: &inner.view, directory: &inner.directory, clock };
            records.drain(..).map(|event| enricher.flow(&event)).collect()
        });
        let ends = flows.iter_mut().flat_map(|flow| [&mut flow.source, &mut flow.destination]);
        for end in ends.filter(|end| end.pod.is_none() && end.node.is_none()) {
            if let Some(name) = self.network.pod_at(end.address.ip()) {
                end.pod = Some(name);
                end.node = Some(self.node.clone());
            }
        }
        flows.into_iter().for_each(|flow| self.recent.push(flow));
    }
}
