//! The feed's protobuf messages and their conversions to and from the model.

/// The generated messages, client and server of `proto/feed.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("fairlead.feed.v1");
}
