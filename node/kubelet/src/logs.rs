//! Container logs in the CRI format: `<RFC 3339 time> stdout|stderr F|P <text>`.
//!
//! The writer is a small process per container, started by containerd's shim ([`driver`]): it lives as long as the
//! container, so logs go on while the kubelet is down. The kubelet only reads ([`reader`]).

pub(crate) mod absent;
pub(crate) mod driver;
pub(crate) mod line;
pub(crate) mod reader;

use std::path::{Path, PathBuf};

use crate::network::PodIdentity;

/// The directory of a pod's logs.
pub(crate) fn pod_directory(log_dir: &Path, pod: &PodIdentity) -> PathBuf {
    log_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

/// The file of one attempt of a container.
pub(crate) fn file(log_dir: &Path, pod: &PodIdentity, container: &str, attempt: u32) -> PathBuf {
    pod_directory(log_dir, pod).join(container).join(format!("{attempt}.log"))
}

/// The older parts of a log file, newest first: `0.log.1` … `0.log.4`.
pub(crate) fn rotated(file: &Path, number: u32) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}
