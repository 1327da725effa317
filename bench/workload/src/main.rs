//! The echo server and load client that demo and test pods run.

fn main() {}
