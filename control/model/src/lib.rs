//! What the dataplane and DNS need to know of a cluster, as plain values.
//!
//! The feed builds these from API objects; the node daemon and the DNS server read them. There is no JSON, gRPC,
//! async or eBPF here, and there never will be. Start reading at [`change::Change`]; [`view::View`] is what a reader
//! holds.

pub mod change;
pub mod flow;
pub mod node;
pub mod pod;
pub mod service;
pub mod view;

pub use change::{Change, Revision, Update};
pub use flow::{Flow, FlowEnd, FlowState, Verdict};
pub use node::{Node, Prefix};
pub use pod::{HostPort, Pod};
pub use service::{
    Algorithm, Endpoint, EndpointPort, EndpointSlice, ObjectName, Protocol, Service, ServiceKind,
    ServicePort, TrafficDistribution, TrafficPolicy,
};
pub use view::View;
