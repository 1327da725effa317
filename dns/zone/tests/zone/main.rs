//! Tests of the zone through its public interface.

mod support;

mod answers;
mod updates;
