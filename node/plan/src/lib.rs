//! Pure planning: snapshot and observed kernel state to operations.
