//! Decides what the kernel should hold: (what the cluster is, what the kernel holds) to ordered operations.
//!
//! Everything here is pure. Nothing opens a file, asks the time or makes a system call: time is an argument, the
//! kernel's state is a value, the result is a list of [`Op`]s that `fairlead-kernel` applies in order. There is one
//! module per proxy mode: [`ebpf`], and [`iptables`], [`nftables`] and [`ipvs`], which share [`classic`]. Start reading
//! at [`ebpf::Planner::plan`]; which endpoints a service uses is [`select`], the pod networks of other nodes are
//! [`routes`].

pub mod classic;
pub mod ebpf;
pub mod iptables;
pub mod ipvs;
pub mod mode;
pub mod nftables;
pub mod op;
pub mod routes;
pub mod select;

pub use ebpf::{
    Changes, Limits, LocalNode, NODE_PORTS, ObservedServices, Owner, Plan, Planner, Problem, Scope, Usage,
};
pub use mode::{ProxyMode, UnknownMode};
pub use op::Op;
pub use routes::{ObservedRoutes, plan_routes};
