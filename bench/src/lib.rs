//! The scenario that the demo shows and the end-to-end tests check, and the benchmarks.
//!
//! Everything here uses Fairlead from outside: the `fairlead` binary, kubectl, the API; [`programming`] also speaks the [`feed`].
//! Start reading at [`scenario`].

pub mod admin;
pub mod api;
pub mod cluster;
pub mod cost;
pub mod dns;
pub mod feed;
pub mod image;
pub mod kubectl;
mod modes;
pub mod programming;
pub mod proxy;
pub mod report;
pub mod scenario;
pub mod screen;
pub mod smoke;
pub mod stop;
pub mod throughput;
