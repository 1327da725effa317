//! The server on loopback, asked over real sockets; upstream servers are the tests' own.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, as tests may")]

mod support;

mod cluster;
mod encrypted;
mod forwarding;
mod transport;
