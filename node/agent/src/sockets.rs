//! Ends sockets whose backend has stopped.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fairlead_kernel::{
    cgroup::network_namespaces,
    net::{Namespace, sockets::end_udp_sockets},
};
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
    /// The cgroup whose sockets are translated, where pods are not ours.
    pub(crate) strangers: Option<PathBuf>,
    /// How many were ended.
    pub(crate) ended: Arc<AtomicU64>,
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
            if gone.is_empty() {
                continue;
            }
            let mut pods: Vec<_> =
                self.network.records().into_values().map(|record| Namespace::at(record.netns)).collect();
            let strangers = self.strangers.clone();
            let end = move || {
                pods.extend(strangers.iter().flat_map(|cgroup| network_namespaces(cgroup)));
                end_everywhere(&gone, pods)
            };
            match tokio::task::spawn_blocking(end).await {
                Ok(count) => drop(self.ended.fetch_add(count, Ordering::Relaxed)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime ends.
                Err(_) => return Ok(()),
            }
        }
    }
}

/// In the host's namespace and in the pods'; returns how many were ended. What cannot be done is logged: the socket's owner
/// has to notice by itself.
fn end_everywhere(gone: &BTreeSet<SocketAddr>, pods: Vec<Namespace>) -> u64 {
    let mut all = 0;
    let mut note = |place: &str, ended: io::Result<usize>| match ended {
        Ok(0) => {}
        Ok(count) => {
            all += count as u64;
            tracing::debug!(count, place, "ended UDP sockets whose backend has stopped");
        }
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
    all
}
