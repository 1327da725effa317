//! Pure packet logic, built for the kernel and for the host.
