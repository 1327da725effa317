//! The API server from outside: the kube client in the same process, HTTP over TLS, and the real kubectl.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod apply;
mod client;
mod evictions;
mod generated;
mod http;
mod informers;
mod kubectl;
mod limits;
mod lists;
mod logs;
mod meddled;
mod python;
mod reviews;
mod robust;
mod rollout;
mod stopping;
mod support;
mod watches;
