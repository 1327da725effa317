//! Kernel parameters of the network namespace that the calling thread is in.

use std::{fs, io, ops::RangeInclusive, path::Path};

use crate::KernelError;

/// Writes `value` to `/proc/sys/net/<name>` unless it holds that already; says whether it did not.
///
/// # Errors
/// It cannot be written; a read-only `/proc/sys` is the usual reason.
pub fn set(name: &str, value: &str) -> Result<bool, KernelError> {
    let path = Path::new("/proc/sys/net").join(name);
    match fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(false),
        // The kernel has no IPv6: then there is nothing to say about it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6/") => Ok(false),
        _ => fs::write(&path, value)
            .map(|()| true)
            .map_err(KernelError::file("setting kernel parameter", path)),
    }
}

/// What `/proc/sys/net/<name>` holds.
///
/// # Errors
/// It cannot be read.
pub fn get(name: &str) -> Result<String, KernelError> {
    let path = Path::new("/proc/sys/net").join(name);
    let value = fs::read_to_string(&path).map_err(KernelError::file("reading", path))?;
    Ok(value.trim().to_owned())
}

/// Sets all of these; says which of them did not hold.
fn set_all<N: AsRef<str>>(
    values: impl IntoIterator<Item = (N, &'static str)>,
) -> Result<Vec<String>, KernelError> {
    let mut changed = Vec::new();
    for (name, value) in values {
        if set(name.as_ref(), value)? {
            changed.push(name.as_ref().to_owned());
        }
    }
    Ok(changed)
}

/// Makes the namespace a router between its pods and the uplink, if it has one now. Returns the parameters that had to be
/// set.
///
/// # Errors
/// A parameter cannot be set.
pub fn make_router(uplink: Option<&str>, pods_are_ours: bool) -> Result<Vec<String>, KernelError> {
    if let Some(uplink) = uplink {
        // Forwarding makes an interface ignore router advertisements unless it is told otherwise (2), and a host that
        // lives by them would lose its default route.
        let accept_ra = format!("ipv6/conf/{uplink}/accept_ra");
        if get(&accept_ra).is_ok_and(|value| value == "1") {
            set(&accept_ra, "2")?;
        }
    }
    let mut changed = set_all([("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    // Replies of pods may leave by another way than the requests came; the link programs check sources instead.
    let unfiltered = ["all", "default"].into_iter().chain(uplink).filter(|_| pods_are_ours);
    changed.extend(set_all(unfiltered.map(|name| (format!("ipv4/conf/{name}/rp_filter"), "0")))?);
    Ok(changed)
}

/// Prepares the overlay: it carries packets between programs, and from them to processes of this node. It has no addresses;
/// without IPv6 the kernel would drop what is for a process. Returns the parameters that had to be set.
///
/// # Errors
/// A parameter cannot be set.
pub fn make_overlay(interface: &str) -> Result<Vec<String>, KernelError> {
    // No link-local address: `IN6_ADDR_GEN_MODE_NONE` of `linux/if_link.h`.
    let v6 = [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")];
    let v6 = v6.map(|(name, value)| (format!("ipv6/conf/{interface}/{name}"), value));
    set_all(v6.into_iter().chain([(format!("ipv4/conf/{interface}/rp_filter"), "0")]))
}

/// Keeps the kernel from giving ports of these ranges to sockets that ask for any; says whether it did not.
///
/// # Errors
/// The parameter cannot be read or set.
pub fn reserve_ports(ranges: &[&RangeInclusive<u16>]) -> Result<bool, KernelError> {
    set(RESERVED_PORTS, &with_ranges(&get(RESERVED_PORTS)?, ranges))
}

/// The parameter that says which ports those are.
pub const RESERVED_PORTS: &str = "ipv4/ip_local_reserved_ports";

/// A list such as `22,8080-8090` with more ranges, as the kernel writes it.
fn with_ranges(list: &str, ranges: &[&RangeInclusive<u16>]) -> String {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let listed = list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((number(first)?, number(last)?))
    });
    let mut all: Vec<(u16, u16)> = ranges.iter().map(|range| (*range.start(), *range.end())).collect();
    all.extend(listed);
    all.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some(previous) if u32::from(first) <= u32::from(previous.1) + 1 => {
                previous.1 = previous.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    merged.iter().map(text).collect::<Vec<_>>().join(",")
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
    set(&format!("ipv4/conf/{interface}/rp_filter"), "0").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_keep_what_others_have_reserved() {
        let ranges = [&(30_000..=32_767), &(61_000..=65_535)];
        for (list, expected) in [
            ("", "30000-32767,61000-65535"),
            ("22,8080-8090", "22,8080-8090,30000-32767,61000-65535"),
            ("30000-32767,61000-65535", "30000-32767,61000-65535"),
            ("32768,29000-30500", "29000-32768,61000-65535"),
        ] {
            assert_eq!(with_ranges(list, &ranges), expected, "{list:?}");
        }
    }
}
