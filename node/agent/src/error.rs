//! Why the agent cannot start or go on.

use std::{io, path::PathBuf};

use fairlead_kernel::{KernelError, Process};

/// The agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Another agent uses the state directory.
    #[error(
        "{path} is locked: another agent runs with this state directory; stop it or give this one another directory"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file of the agent's own.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system call's answer.
        #[source]
        source: io::Error,
    },
    /// The checkpoint is not readable.
    #[error("{path} is not a checkpoint of pods: {source}; if no pod runs on this node, delete the file")]
    Checkpoint {
        /// Where it is.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The checkpoint was written by a newer build.
    #[error("{path} was written by a newer version ({found}, this build knows {known}); use that version")]
    CheckpointVersion {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        known: u32,
    },
    /// A socket cannot be bound.
    #[error("listening on {address} for {purpose}: {source}; {}", who_listens(.holder.as_ref()))]
    Bind {
        /// What for.
        purpose: &'static str,
        /// Where.
        address: String,
        /// The system call's answer.
        #[source]
        source: io::Error,
        /// Who listens there, if that can be seen.
        holder: Option<Process>,
    },
    /// A server stopped.
    #[error("serving {purpose}: {source}")]
    Serve {
        /// Which.
        purpose: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ring buffer cannot be read.
    #[error("reading event records: {0}")]
    Events(#[source] io::Error),
    /// The maps that pods are in have no room for another one.
    #[error(
        "the node has {pods} pods, which is as many as its eBPF maps hold; it takes another one when one is gone"
    )]
    PodsExhausted {
        /// How many pods have a place.
        pods: usize,
    },
    /// All addresses of the node's pod network are given away.
    #[error("no free address in the pod networks of this node ({networks}): {pods} pods have one")]
    AddressesExhausted {
        /// The networks.
        networks: String,
        /// How many pods have addresses.
        pods: usize,
    },
}

fn who_listens(holder: Option<&Process>) -> String {
    match holder {
        Some(holder) => format!("{holder} listens there: stop it, or choose another address"),
        None => "does another agent run, or kube-proxy in a container?".to_owned(),
    }
}

impl AgentError {
    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }
}
