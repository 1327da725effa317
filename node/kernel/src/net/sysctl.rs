//! Kernel parameters of the network namespace that the calling thread is in.

use std::{fs, io, path::Path};

use crate::KernelError;

/// Writes `value` to `/proc/sys/net/<name>` unless it holds that already.
///
/// # Errors
/// It cannot be written; a read-only `/proc/sys` is the usual reason.
pub fn set(name: &str, value: &str) -> Result<(), KernelError> {
    let path = Path::new("/proc/sys/net").join(name);
    match fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        // The kernel has no IPv6: then there is nothing to say about it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6/") => Ok(()),
        _ => fs::write(&path, value).map_err(KernelError::file("setting kernel parameter", path)),
    }
}

/// Makes the namespace a router between its pods and the uplink.
///
/// # Errors
/// A parameter cannot be set.
pub fn make_router(uplink: &str) -> Result<(), KernelError> {
    // Forwarding makes an interface ignore router advertisements unless it is told otherwise (2), and a host that
    // lives by them would lose its default route.
    let accept_ra = format!("ipv6/conf/{uplink}/accept_ra");
    if fs::read_to_string(Path::new("/proc/sys/net").join(&accept_ra)).is_ok_and(|value| value.trim() == "1")
    {
        set(&accept_ra, "2")?;
    }
    set("ipv4/ip_forward", "1")?;
    set("ipv6/conf/all/forwarding", "1")?;
    // Replies of pods may leave by another way than the requests came; the link programs check sources instead.
    for interface in ["all", "default", uplink] {
        set(&format!("ipv4/conf/{interface}/rp_filter"), "0")?;
    }
    Ok(())
}

/// Prepares a pod's namespace before it has an interface: addresses are usable at once and nothing configures itself.
///
/// # Errors
/// A parameter cannot be set.
pub fn make_pod() -> Result<(), KernelError> {
    for (name, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")] {
        set(&format!("ipv6/conf/default/{name}"), value)?;
    }
    Ok(())
}

/// Prepares the host side of a pod's veth.
///
/// # Errors
/// A parameter cannot be set.
pub fn make_pod_gateway(interface: &str) -> Result<(), KernelError> {
    set(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    set(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
    set(&format!("ipv4/conf/{interface}/rp_filter"), "0")
}
