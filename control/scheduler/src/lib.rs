//! Binds pods to nodes: filter and score plugins over the API.
