//! The revisioned store behind the API server.
