//! `fairlead`: the one binary.
fn main() {}
