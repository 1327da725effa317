//! The packet tier: the loaded programs do what the datapath does on the host.
//!
//! `object` compares the object with its contract, `table` runs the packet table through the loaded TCX programs,
//! `sockets` puts real sockets under the cgroup hooks, and `links` sends real packets between network namespaces.
//! Needs root and the object that `cargo xtask build` makes; without either these tests fail.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod links;
mod object;
mod sockets;
mod support;
mod table;
