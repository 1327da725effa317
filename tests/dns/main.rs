//! The DNS server from outside: the real binary, asked by `dig`, over UDP and TCP, over IPv4 and IPv6.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

mod encrypted;
mod ending;
mod labels;
mod options;
mod plugins;
mod records;
mod upstream;
mod wrong;
