//! Pure DNS answers from a view of the cluster.
