//! Tests of the zone through its public interface.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, as tests may")]

mod support;

mod answers;
mod updates;
mod zonal;
