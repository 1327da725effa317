//! Whoever else is on this machine: another proxy, the holder of a lock or of a port.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::libc::{major, minor};

use crate::KernelError;

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// The name of its program; cut after 15 bytes, as the kernel does.
    pub name: String,
    /// Its number.
    pub pid: u32,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// Fails when kube-proxy runs in this network namespace: both would write chains of the same names, each undoing what
/// the other does. Its chains alone are no sign of that: they stay when it has ended.
///
/// # Errors
/// It runs.
pub fn require_no_kube_proxy() -> Result<(), KernelError> {
    match find("kube-proxy") {
        Some(process) => Err(KernelError::OtherProxy { process }),
        None => Ok(()),
    }
}

/// A process of that name in the network namespace of this one.
fn find(name: &str) -> Option<Process> {
    let own = fs::read_link("/proc/thread-self/ns/net").ok()?;
    let is_here = |process: &Process| {
        process.name == name
            && fs::read_link(of(process.pid, "ns/net")).is_ok_and(|namespace| namespace == own)
    };
    processes().find(is_here)
}

/// Who listens on a TCP port in the network namespace of the calling thread, among the processes that are seen from here:
/// one in a container's process namespace sees its own only.
pub fn listener(port: u16) -> Option<Process> {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
    let inode = tables.iter().flatten().find_map(|table| listening_inode(table, port))?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let has_it = |process: &Process| {
        let files = fs::read_dir(of(process.pid, "fd")).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link == socket)
    };
    processes().find(has_it)
}

/// Whoever holds a lock on a file (`flock`), likewise.
pub(crate) fn lock_holder(file: &Path) -> Option<Process> {
    let metadata = fs::metadata(file).ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let wanted = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    process(held_by(&locks, &wanted)?)
}

/// The process in a line such as `3: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; those that wait have an arrow.
fn held_by(locks: &str, wanted: &str) -> Option<u32> {
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let held = fields.filter(|fields| fields.get(1) != Some(&"->"));
    held.filter(|fields| fields.get(5) == Some(&wanted)).find_map(|fields| fields.get(4)?.parse().ok())
}

/// The inode of the socket that listens on a port, in a table as `proc_net_tcp` of the kernel's documentation has it.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    /// `TCP_LISTEN`
    const LISTEN: &str = "0A";
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = fields.filter(|fields| fields.get(3) == Some(&LISTEN));
    let ends_with = format!(":{port:04X}");
    let found = listening.find(|fields| fields.get(1).is_some_and(|local| local.ends_with(&ends_with)))?;
    found.get(9)?.parse().ok()
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
}

fn process(pid: u32) -> Option<Process> {
    let name = fs::read_to_string(of(pid, "comm")).ok()?.trim_end().to_owned();
    Some(Process { name, pid })
}

fn of(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, process::id};

    use super::*;

    #[test]
    fn a_process_is_found_by_its_name_and_nobody_else() {
        let own = fs::read_to_string("/proc/self/comm").expect("Linux");
        assert!(find(own.trim_end()).is_some());
        assert_eq!(find("no-such-proxy"), None);
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("it is bound").port();
        assert_eq!(listener(port).map(|process| process.pid), Some(id()));
        drop(socket);
        assert_eq!(listener(port), None);
    }

    #[test]
    fn who_holds_a_lock_is_found_by_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(lock_holder(file.path()), None);
        file.as_file().lock().expect("nobody else has it");
        assert_eq!(lock_holder(file.path()).map(|process| process.pid), Some(id()));
    }

    #[test]
    fn who_waits_for_a_lock_does_not_hold_it() {
        let locks = "1: FLOCK  ADVISORY  WRITE 77 fe:00:5678 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 78 fe:00:5678 0 EOF\n";
        assert_eq!(held_by(locks, "fe:00:5678"), Some(77));
        assert_eq!(held_by(locks, "fe:00:567"), None);
    }
}
