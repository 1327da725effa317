//! What only shows on the wire.
