//! The cluster DNS server: sockets, zone, forwarding, metrics.
//!
//! Answers for the cluster come from [`fairlead_zone`], never from a cache; everything else goes to the upstream
//! servers. It never waits for the control plane to answer a question. Start reading at [`DnsServer`]; the life of a
//! question is in `handler`.

mod config;
mod error;
mod labels;
mod net;

mod chain;
mod codec;
mod metrics;
mod records;
mod relay;

mod cache;
mod flight;
mod upstream;

mod catalog;
mod sync;
mod world;

mod corefile;
mod generation;
mod plugin;

mod handler;
mod hot;

mod listen;

mod admin;
mod feed;
mod heartbeat;
mod snapshot;

mod server;

pub mod client;

pub use config::{At, Config, Corefile};
pub use corefile::CorefileError;
pub use error::DnsError;
pub use feed::feed_updates;
pub use labels::{Labelled, Labels, Selected};
pub use listen::{Inherited, open_sockets};
pub use server::{DnsServer, Notice};
