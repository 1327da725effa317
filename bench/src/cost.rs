//! `bench cost`: what an operation costs in instructions of the kernel.
//!
//! This is the part that runs inside the virtual machine that `cargo xtask bench cost` boots, where a nanosecond is an
//! instruction ([`guest`]). The agent is the real one, in a process of its own ([`agent`]), and is stopped while
//! something is measured, so that what is counted is the way of the packets: the client, the server and the kernel.

pub mod agent;
pub(crate) mod case;
pub(crate) mod count;
pub(crate) mod feed;
pub mod guest;
mod hooks;
pub(crate) mod machines;
pub(crate) mod place;
pub mod running;
pub(crate) mod traffic;

use std::net::SocketAddr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// One number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `cost`.
    pub bench: String,
    /// How the packets go: `loopback`, `none` or a proxy mode.
    pub mode: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Which tier translates, or what is left out.
    pub path: String,
    /// How many services there are.
    pub services: u32,
    /// What is done.
    pub op: String,
    /// Thousand instructions for one operation (for `bulk`: for one KiB).
    pub value: f64,
    /// `kinsn`.
    pub unit: String,
}

impl Row {
    fn new(mode: &str, path: &str, services: u32, to: SocketAddr, op: &str, value: f64) -> Self {
        Self {
            bench: "cost".into(),
            mode: mode.into(),
            family: if to.is_ipv4() { "ipv4" } else { "ipv6" }.into(),
            path: path.into(),
            services,
            op: op.into(),
            // To a millionth: there are programs of a hundred instructions.
            value: (value * 1e6).round() / 1e6,
            unit: "kinsn".into(),
        }
    }

    /// Writes it as a line of JSON, for the host to read.
    fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}
