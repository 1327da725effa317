//! Pods on containerd: images, containers, probes, logs, status.

pub mod network;
