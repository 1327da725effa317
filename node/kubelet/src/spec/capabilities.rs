//! Linux capabilities of a container.

use k8s_openapi::api::core::v1::Capabilities;

/// What a container has unless told otherwise (the set of containerd and Docker).
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// The others a container can be given.
const FURTHER: [&str; 24] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
    "CAP_WAKE_ALARM",
];

/// The capabilities of a container. Privileged ones, and those that add `ALL`, get all that are known here and that
/// this process has itself.
pub(crate) fn effective(change: Option<&Capabilities>, privileged: bool) -> Vec<String> {
    effective_within(change, privileged, own_bounding_set())
}

fn effective_within(change: Option<&Capabilities>, privileged: bool, own: u64) -> Vec<String> {
    let add = change.and_then(|c| c.add.as_deref()).unwrap_or_default();
    let drop = change.and_then(|c| c.drop.as_deref()).unwrap_or_default();
    let has = |list: &[String], name: &str| list.iter().any(|item| canonical(item) == name);
    let all = privileged || has(add, "CAP_ALL");
    DEFAULT
        .iter()
        .map(|name| (name, true))
        .chain(FURTHER.iter().map(|name| (name, false)))
        .filter(|(name, default)| {
            let kept = *default && !has(drop, "CAP_ALL") || all;
            privileged || has(add, name) || kept && !has(drop, name)
        })
        .filter(|(name, _)| number(name).is_none_or(|bit| own & (1 << bit) != 0))
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

fn canonical(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// Bits of this process's bounding set: what it lacks it cannot give.
fn own_bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// Numbers from `linux/capability.h`.
fn number(name: &str) -> Option<u32> {
    const ORDER: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let name = name.strip_prefix("CAP_")?;
    ORDER.iter().position(|known| *known == name).and_then(|bit| u32::try_from(bit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(add: &[&str], drop: &[&str]) -> Capabilities {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        Capabilities { add: list(add), drop: list(drop) }
    }

    #[test]
    fn added_and_dropped_capabilities_change_the_default_set() {
        let all = u64::MAX;
        assert_eq!(effective_within(None, false, all).len(), DEFAULT.len());
        assert!(
            effective_within(Some(&change(&["NET_ADMIN"], &[])), false, all)
                .contains(&"CAP_NET_ADMIN".into())
        );
        assert!(
            !effective_within(Some(&change(&[], &["net_raw"])), false, all).contains(&"CAP_NET_RAW".into())
        );
        assert_eq!(effective_within(Some(&change(&["KILL"], &["ALL"])), false, all), ["CAP_KILL"]);
        assert_eq!(effective_within(None, true, all).len(), DEFAULT.len() + FURTHER.len());
    }

    #[test]
    fn what_the_kubelet_lacks_is_not_given() {
        let without_net_raw = !(1 << 13);
        assert!(!effective_within(None, true, without_net_raw).contains(&"CAP_NET_RAW".into()));
    }
}
