//! The scenario that the demo shows and the end-to-end tests check, and the benchmarks.
//!
//! Everything here uses Fairlead from outside: the `fairlead` binary, kubectl, the API. Start reading at [`scenario`].

pub mod cluster;
pub mod cost;
pub mod image;
pub mod kubectl;
pub mod scenario;
pub mod screen;
pub mod smoke;
