//! Network-namespace topologies, packet builders, eventually(). For tests and benchmarks only.
