//! Whether this kernel has IPVS.

use std::{io::Write as _, path::Path};

use fairlead_agent::ProxyMode;

/// Set where the kernel must have IPVS: a machine that was made for it.
const NEEDS_IPVS: &str = "FAIRLEAD_NEEDS_IPVS";

/// Those of these modes that the kernel has, none twice in a row.
pub(crate) fn possible(modes: &[ProxyMode]) -> Vec<ProxyMode> {
    let has_ipvs = Path::new("/proc/net/ip_vs").exists();
    if !has_ipvs {
        assert!(std::env::var_os(NEEDS_IPVS).is_none(), "{NEEDS_IPVS} is set, but the kernel has no IPVS");
        // Not by `eprintln`, which a test that passes does not show.
        let _told = writeln!(std::io::stderr(), "IPVS is not tried: this kernel has it not, or not loaded");
    }
    let mut possible: Vec<_> =
        modes.iter().copied().filter(|mode| has_ipvs || *mode != ProxyMode::Ipvs).collect();
    possible.dedup();
    possible
}
