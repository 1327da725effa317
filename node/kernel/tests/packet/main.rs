//! The packet tier: the loaded programs do what the datapath does on the host.
//!
//! `object` compares the object with its contract, `table` runs the packet table through the loaded TCX programs,
//! `sockets` puts real sockets under the cgroup hooks, `links` sends real packets between pods, `outside` lets clients outside
//! the cluster, and pods whose sockets nobody translates, use services, and `narrow` puts a router before such a client.
//! Needs root and the object that `cargo xtask build` makes; without either these tests fail.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod links;
mod narrow;
mod nodes;
mod object;
mod outside;
mod sockets;
mod support;
mod table;
