//! The kernel parameter that lets packets of loopback leave it, which IPv4 node ports on loopback need in iptables mode.
//!
//! While it is on, loopback is reachable from outside but for a rule of that mode (CVE-2020-8558). So it is on only while the
//! rule is there, unless somebody else has set it: a kube-proxy does as well.

use std::path::Path;

use fairlead_kernel::{KernelError, net::sysctl};

use super::notes;

/// In an agent's state directory: what the parameter was before the agent set it.
pub(super) const FILE: &str = "route-localnet";

const PARAMETER: &str = "ipv4/conf/all/route_localnet";

/// Sets it, and notes what it was.
///
/// # Errors
/// The parameter or the file cannot be written.
pub(super) fn allow(state_dir: &Path) -> Result<(), KernelError> {
    let before = sysctl::get(PARAMETER)?;
    if before != "1" {
        notes::write(&state_dir.join(FILE), [before])?;
        sysctl::set(PARAMETER, "1")?;
    }
    Ok(())
}

/// Makes it what it was, if it was set here.
///
/// # Errors
/// The parameter cannot be written, or the file cannot be read or removed.
pub(super) fn put_back(state_dir: &Path) -> Result<(), KernelError> {
    let path = state_dir.join(FILE);
    for before in notes::read::<String>(&path)?.unwrap_or_default() {
        sysctl::set(PARAMETER, &before)?;
    }
    notes::forget(&path)
}
