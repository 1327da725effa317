//! Applies and observes kernel state: maps and programs through aya, links, addresses and routes through netlink,
//! network namespaces, cgroups.
//!
//! This crate has no opinions: what to do is decided by `fairlead-plan` (services, routes) and by its callers (pods).
//! It never looks at the feed or the API. [`Dataplane::open`] makes sure that the node's programs run and hands out
//! the parts: [`Tables`] for the sync loop (behind [`State`], which has a fake), [`Pods`] for the pod network,
//! [`Counters`] and [`Events`] for observation. Everything is pinned, so it keeps working while no process is there.

pub mod bpf;
pub mod cgroup;
pub mod cleanup;
pub mod clock;
pub mod conflict;
pub mod conntrack;
pub mod counters;
pub mod dataplane;
pub mod error;
pub mod events;
pub mod explain;
pub mod fake;
pub mod features;
mod flows;
pub mod garbage;
pub mod inspect;
pub mod iptables;
pub mod ipvs;
pub mod logs;
mod memory;
pub mod net;
pub mod nft;
pub mod options;
pub mod pods;
mod retire;
mod stack;
pub mod state;
pub mod tables;
mod tool;
mod upkeep;
mod uplink;

pub use bpf::driver::{Driver, DriverMode};
pub use cleanup::{NodeFootprint, remove_node};
pub use conflict::{Process, listener, require_no_kube_proxy};
pub use counters::{Counters, PodTotals};
pub use dataplane::{Dataplane, DataplaneConfig, ProgramSummary};
pub use error::KernelError;
pub use events::Events;
pub use fake::FakeState;
pub use features::{require_features, require_kernel};
pub use garbage::{Collected, Fill, Garbage, LruFill, Timeouts};
pub use inspect::{Inspector, MapSummary};
pub use logs::ProgramLogs;
pub use memory::let_go_of_code;
pub use net::{LocalChange, LocalChanges};
pub use options::{Capacities, Carriage, Forwarding, ServiceOptions, Xdp};
pub use pods::{PodSpec, Pods};
pub use retire::{is_pinned, retire_ebpf_services};
pub use stack::retire_masquerade;
pub use state::{Interface, LocalState, State};
pub use tables::Tables;
pub use uplink::Uplink;
