//! The node daemon: reads the feed, plans, applies; gives pods their network; tells what it sees.
//!
//! [`Agent::new`] opens the node's dataplane and binds its sockets, [`Agent::run`] serves. Everything in the kernel is
//! pinned and stays when the process ends, so a restart (or `kill -9`) breaks nothing. The agent decides nothing about
//! services or routes itself: that is `fairlead-plan`. Start reading at [`sync`].

mod admin;
mod agent;
mod check_ports;
mod cluster;
mod config;
mod error;
mod files;
mod flow_pump;
mod garbage;
mod health;
pub mod inspect;
mod ipam;
mod local;
mod locals;
mod metrics;
mod network;
mod report;
mod resolver;
mod rules;
mod serve;
mod sockets;
mod stats;
pub mod sync;

pub use agent::Agent;
pub use config::{Config, NodePortAddresses, RuleConfig, ServiceConfig};
pub use error::AgentError;
pub use fairlead_kernel::{Capacities, Forwarding, ServiceOptions, Timeouts, Xdp};
pub use fairlead_plan::{ProxyMode, UnknownMode};
pub use fairlead_wire::client::{FeedEndpoint, FeedSource};
pub use report::{CLIENT_PORT, MapFill, PodReport, ProgramReport, Status};
pub use rules::leftovers::{LEFTOVER_FILES, MODES_FILE, clean_up};
pub use stats::Applied;
