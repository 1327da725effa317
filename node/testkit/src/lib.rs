//! For tests and benchmarks only: network namespaces and what connects them, packets on an interface, `eventually`.
//!
//! Everything made here has a name of its own per process and is removed when it is dropped. Nothing has a route to
//! the outside.

pub mod capture;
pub mod cgroup;
pub mod echo;
pub mod eventually;
pub mod netns;
pub mod topology;

pub use capture::Capture;
pub use cgroup::InCgroup;
pub use eventually::{eventually, eventually_within};
pub use netns::Netns;
pub use topology::{Node, NodesAndClient, TwoNodes};
