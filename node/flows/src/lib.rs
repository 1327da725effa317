//! Ring-buffer bytes to flows and counters.
