//! Ends sockets whose backend has stopped.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};

use fairlead_kernel::net::{Namespace, sockets::end_udp_sockets};
use fairlead_model::Protocol;
use fairlead_plan::select::Target;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{AgentError, network::Network};

/// Endpoints that stopped, in the order in which their end was committed.
pub(crate) type Stopped = Vec<(Protocol, Target)>;

/// The task.
pub(crate) struct SocketEnder {
    pub(crate) stopped: mpsc::UnboundedReceiver<Stopped>,
    pub(crate) network: Arc<Network>,
}

impl SocketEnder {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        loop {
            let first = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                first = self.stopped.recv() => match first {
                    Some(first) => first,
                    None => return Ok(()),
                },
            };
            let mut all = first;
            while let Ok(more) = self.stopped.try_recv() {
                all.extend(more);
            }
            let udp = all.into_iter().filter(|(protocol, _)| *protocol == Protocol::Udp);
            let gone: BTreeSet<_> = udp.map(|(_, to)| SocketAddr::new(to.address, to.port)).collect();
            let pods =
                self.network.records().into_values().map(|record| Namespace::at(record.netns)).collect();
            if let Err(error) = tokio::task::spawn_blocking(move || end_everywhere(&gone, pods)).await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// In the host's namespace and in the pods'. What cannot be done is logged: the socket's owner has to notice by itself.
fn end_everywhere(gone: &BTreeSet<SocketAddr>, pods: Vec<Namespace>) {
    let note = |place: &str, ended: io::Result<usize>| match ended {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, place, "ended UDP sockets whose backend has stopped"),
        Err(error) => tracing::warn!(%error, place, "cannot end UDP sockets whose backend has stopped"),
    };
    note("the node", end_udp_sockets(gone));
    for pod in pods {
        match pod.enter(|| end_udp_sockets(gone)) {
            Ok(ended) => note(&pod.path().display().to_string(), ended),
            // It went together with its sockets.
            Err(_) if !pod.exists() => {}
            Err(error) => tracing::warn!(%error, "cannot end UDP sockets of a pod"),
        }
    }
}
