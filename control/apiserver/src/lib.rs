//! The Kubernetes REST API over the store.

pub mod patch;
pub mod resource;
pub mod selector;
pub mod table;
