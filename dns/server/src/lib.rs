//! The cluster DNS server: sockets, zone, forwarding, metrics.
//!
//! Answers for the cluster come from [`fairlead_zone`], never from a cache; everything else goes to the upstream
//! servers. It never waits for the control plane to answer a question. Start reading at [`DnsServer`]; the life of a
//! question is in `handler`.

mod config;
mod error;

mod codec;
mod metrics;
mod relay;

mod chain;

mod cache;
mod upstream;

mod forward;

mod handler;
mod hot;

mod listen;

mod admin;
mod feed;
mod snapshot;
mod sync;

mod server;

pub use config::Config;
pub use error::DnsError;
pub use feed::feed_updates;
pub use listen::{Inherited, open_sockets};
pub use server::DnsServer;
