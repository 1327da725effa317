//! Pods on containerd: images, containers, probes, logs, status.
