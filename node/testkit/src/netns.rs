//! Named network namespaces that remove themselves.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Where iproute2 keeps names of namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// A network namespace of this test, with loopback up.
#[derive(Debug)]
pub struct Netns {
    name: String,
    /// It goes when this goes.
    owned: bool,
}

impl Netns {
    /// A new namespace; `label` helps when a test that was killed left it behind.
    ///
    /// # Panics
    /// It cannot be made: not root, or no iproute2.
    pub fn new(label: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("fltest-{}-{}-{label}", id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        command("ip", &["netns", "add", &name]);
        let netns = Self { name, owned: true };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// One that another process has made and removes.
    pub fn of_another(name: &str) -> Self {
        Self { name: name.to_owned(), owned: false }
    }

    /// Its name under [`NETNS_DIR`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Runs `ip` inside; returns what it prints.
    ///
    /// # Panics
    /// It fails.
    pub fn ip(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        command("ip", &all)
    }

    /// Runs a program inside; returns what it prints.
    ///
    /// # Panics
    /// It fails.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.name, program];
        all.extend(arguments);
        command("ip", &all)
    }

    /// Runs `act` on a thread inside; threads and sockets that it makes stay there.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        run_in(&self.path(), act)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.owned {
            let _ = program("ip", &["netns", "delete", &self.name]).output();
        }
    }
}

/// Runs `act` on a thread in the namespace mounted at `path`.
///
/// # Panics
/// It cannot be entered, or `act` panics.
pub fn run_in<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(path).expect("the namespace exists");
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            act()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs a program; returns what it prints.
///
/// # Panics
/// It fails.
pub fn command(name: &str, arguments: &[&str]) -> String {
    let output = program(name, arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {}: {stderr}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program that a Ctrl-C for this process does not concern: what it makes would stay.
fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).process_group(0);
    command
}
