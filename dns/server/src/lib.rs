//! The cluster DNS server: sockets, zone, forwarding, metrics.
