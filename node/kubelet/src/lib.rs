//! Pods on containerd: images, containers, probes, logs, status.
//!
//! The kubelet is an ordinary client of the API for the pods of its own node. It keeps no state of its own that matters:
//! what runs is in containerd, under labels (`pods`), so it can be killed and started again while containers go on.
//! It must never touch packets or services: a pod's network is made by whoever implements [`network::PodNetwork`].
//!
//! Start reading at [`Kubelet`], then `pods/worker.rs` (one pod's life) and `pods/plan.rs` (what is next, pure).

mod error;

mod config;
pub mod network;
mod oci;

pub mod containerd;

mod archive;
mod cgroup;
mod downward;
mod env;
mod events;
mod image;
mod kubelet;
mod logs;
mod node_status;
mod pod_files;
mod pods;
mod probe;
mod references;
mod server;
mod spec;
mod status;
mod volumes;

pub use cgroup::remove_cgroups;
pub use config::{Capacity, Config, LogDriver, TlsConfig};
pub use error::Error;
pub use kubelet::Kubelet;
pub use logs::driver::run_log_driver;
