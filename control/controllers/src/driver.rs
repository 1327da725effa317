//! Runs controllers: watches, queues, carries plans out.

mod execute;
mod hub;
mod queue;
mod worker;

pub use execute::{Executor, WriteError};
pub use hub::Hub;
pub use queue::Queue;
pub use worker::work;

use k8s_openapi::jiff::Timestamp;

use crate::{
    cache::{Caches, Key, Touched},
    plan::Plan,
};

/// A control loop: which objects concern it, and what should be done about one.
pub trait Controller: Send + Sync + 'static {
    /// For logs and as the source of events: `deployment-controller`.
    fn name(&self) -> &'static str;

    /// The keys that have to be looked at after a change.
    fn keys(&self, view: &Caches, touched: &Touched) -> Vec<Key>;

    /// What is to be done about a key. Does no I/O; the same view and time give the same plan.
    fn reconcile(&self, view: &Caches, key: &Key, now: Timestamp) -> Plan;
}
