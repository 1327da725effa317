//! The feed's protobuf messages, their conversions to and from the model, and the client that readers of the feed use.
//!
//! Nothing here decides anything about a cluster. Start reading at [`chunk::responses`] (model to messages),
//! [`chunk::Assembly`] (messages to model) and [`client::Subscription`].

/// The generated messages, client and server of `proto/feed.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("fairlead.feed.v1");
}

pub mod error;

pub mod decode;
pub mod encode;

pub mod chunk;

pub mod client;

pub use chunk::{Assembly, responses};
pub use client::{ConnectionState, FeedEndpoint, FeedSource, Subscription};
pub use error::WireError;
