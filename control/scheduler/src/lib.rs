//! Binds pods to nodes: filter and score plugins over the API.
//!
//! A pure core decides where a pod goes ([`decide::decide`], over a [`cluster::Cluster`]); a thin shell watches nodes
//! and pods, assumes the decision and binds it ([`Scheduler`]). It never evicts a pod and never writes a node.

pub mod quantity;
pub mod request;

pub mod selector;

pub mod node;
pub mod pod;

pub mod filter;
pub mod score;

pub mod cluster;
pub mod decide;
pub mod interpod;
pub mod queue;

mod bind;
mod reports;
mod scheduler;

pub use scheduler::Scheduler;
