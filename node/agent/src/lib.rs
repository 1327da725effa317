//! The node daemon: feed client, sync loop, wiring.
