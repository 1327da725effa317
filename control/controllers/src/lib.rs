//! Control loops: a pure reconcile each, one shared driver.
//!
//! A controller looks at the shared [`cache::Caches`] and returns a [`plan::Plan`]; the driver watches, queues keys,
//! carries plans out, and feeds the answers back into the caches, so that a controller always sees its own writes.
//! No controller talks to another one, or to anything but the API. Start reading at [`driver::Controller`], then at
//! [`replica_set`].

pub mod cache;
pub mod plan;

pub mod meta;
pub mod pods;

pub mod driver;

pub mod election;

pub mod cluster_dns;
pub mod deployment;
pub mod endpoint_slice;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod replica_set;

pub mod garbage;
pub mod namespace;

mod controllers;

pub use controllers::{Controllers, ControllersConfig, ControllersError};
pub use election::{Election, Times};
