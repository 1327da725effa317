//! How much memory this process holds, and has held.

use std::fs;

/// What it holds now, in MiB.
pub(crate) fn resident_mib() -> u64 {
    status_mib("VmRSS:")
}

/// The most that it has held since [`forget`], in MiB.
pub(crate) fn peak_mib() -> u64 {
    status_mib("VmHWM:")
}

/// Begins to look for the most anew.
pub(crate) fn forget() {
    fs::write("/proc/self/clear_refs", "5").expect("Linux forgets the peak on request");
}

fn status_mib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("Linux says how much memory there is");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
