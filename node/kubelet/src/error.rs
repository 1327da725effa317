//! What can go wrong in the kubelet, by operation and object.

use std::{io, path::PathBuf};

use containerd_client::tonic;

/// An operation of the kubelet that failed. The sentence is fit for a user, an Event or a container's status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers on containerd's socket.
    #[error("cannot reach containerd at {socket}: start containerd, or name its socket")]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// What failed below.
        #[source]
        source: Box<tonic::transport::Error>,
    },
    /// containerd refused a request.
    #[error("containerd cannot {operation} {object}: {}", .source.message())]
    Containerd {
        /// For example `create container`.
        operation: &'static str,
        /// Identifier of the object.
        object: String,
        /// containerd's answer.
        #[source]
        source: Box<tonic::Status>,
    },
    /// The containerd binary is not there.
    #[error("containerd is not installed ({binary} was not found): apt-get install containerd runc")]
    NotInstalled {
        /// What was looked for.
        binary: PathBuf,
    },
    /// Another containerd answers where a private one should be started.
    #[error(
        "a containerd already answers at {socket}: stop it (fairlead down) or choose another state directory"
    )]
    AlreadyRunning {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// containerd was started and ended, or did not answer in time.
    #[error("containerd did not come up at {socket}: see {log}")]
    NotAnswering {
        /// Path of the socket.
        socket: PathBuf,
        /// Its log.
        log: PathBuf,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// For example `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed below.
        #[source]
        source: io::Error,
    },
    /// An image archive that cannot be used.
    #[error("image archive {path}: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The API server refused or could not be reached.
    #[error("cannot {operation} {object}: {source}")]
    Api {
        /// For example `get`.
        operation: &'static str,
        /// For example `configmap default/settings`.
        object: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The TLS material of the server cannot be used.
    #[error("the kubelet's TLS {what} cannot be used: {reason}")]
    Tls {
        /// Certificate, key or client CA.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The address of the HTTPS server is taken.
    #[error("cannot listen on {address}: {source}; is another kubelet running on this node?")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What failed below.
        #[source]
        source: io::Error,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup2 file system is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified)")]
    NoCgroup2,
    /// Something in a pod's specification cannot be carried out.
    #[error("{field}: {reason}")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl Error {
    /// Makes a closure for `map_err` on a containerd answer.
    pub(crate) fn containerd(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(tonic::Status) -> Self {
        let object = object.into();
        move |source| Self::Containerd { operation, object, source: Box::new(source) }
    }

    /// Makes a closure for `map_err` on a file operation.
    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    /// Makes a closure for `map_err` on an API answer.
    pub(crate) fn api(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { operation, object, source: Box::new(source) }
    }

    /// A field of a pod that cannot be carried out.
    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }
}
