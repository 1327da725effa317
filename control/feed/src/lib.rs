//! API objects indexed into the model and streamed to nodes.
//!
//! Watches six kinds and the DNS servers' ConfigMap through the API, turns every object into a value of the model
//! ([`objects`]), keeps the result and its recent history in one synchronous [`index::Index`], and serves it to any
//! number of readers by gRPC. It decides nothing about traffic, and a slow reader slows nobody else. Start reading at
//! [`Feed`].

pub mod objects;

pub mod index;

mod service;
mod watch;

mod feed;

pub use feed::{Feed, FeedConfig, FeedError, FeedTls, Pods};
