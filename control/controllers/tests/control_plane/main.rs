//! The control plane in one process: API server, scheduler and controllers, with a kubelet that only pretends.

mod kubelet;
mod support;

mod election;
mod garbage;
mod namespace;
mod node_failure;
mod workload;
