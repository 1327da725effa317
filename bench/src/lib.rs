//! Benchmarks and the end-to-end tests.
