//! Whoever else programs services on this machine.

use std::{fs, path::Path};

use crate::KernelError;

/// Fails when kube-proxy runs in this network namespace: both would write chains of the same names, each undoing what
/// the other does.
///
/// # Errors
/// It runs.
pub fn require_no_kube_proxy() -> Result<(), KernelError> {
    match find("kube-proxy") {
        Some(pid) => Err(KernelError::OtherProxy { name: "kube-proxy", pid }),
        None => Ok(()),
    }
}

/// A process of that name in the network namespace of this one.
fn find(name: &str) -> Option<u32> {
    let own = fs::read_link("/proc/thread-self/ns/net").ok()?;
    let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        let process = Path::new("/proc").join(pid.to_string());
        fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
            && fs::read_link(process.join("ns/net")).is_ok_and(|namespace| namespace == own)
    };
    pids.into_iter().find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_name_and_nobody_else() {
        let own = fs::read_to_string("/proc/self/comm").expect("Linux");
        assert!(find(own.trim_end()).is_some());
        assert_eq!(find("no-such-proxy"), None);
    }
}
