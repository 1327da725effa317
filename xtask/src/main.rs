//! Every developer command: setup, build, demo, test, bench, lint, ci.

fn main() {}
