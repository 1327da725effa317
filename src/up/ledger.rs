//! The ledger: everything `up` makes, written down before it is made, so that `down` finds it after any crash.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::{paths::ClusterPaths, system::processes::ProcessId};

/// Format of the file. A newer one is refused, because it may name things that this version cannot remove.
const VERSION: u32 = 1;

/// Where a cluster is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// Its nodes are not all Ready yet.
    Starting,
    /// It can be used.
    Ready,
    /// It is being removed.
    Stopping,
}

/// Something that was made and has to be removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Item {
    /// A directory that is only of use while the cluster runs.
    Directory { path: PathBuf },
    /// A named network namespace.
    Netns { name: String },
    /// A link in one of those; it goes with its namespace.
    Link { netns: String, name: String },
    /// A cgroup, by its path below each hierarchy.
    Cgroup { path: PathBuf },
    /// A directory of pinned BPF objects.
    Pins { path: PathBuf },
    /// A mount.
    Mount { path: PathBuf },
    /// A containerd namespace.
    ContainerdNamespace { socket: PathBuf, name: String },
    /// A child process.
    Process { role: String, id: ProcessId },
}

/// Contents of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Format of the file.
    pub(crate) version: u32,
    /// Name of the cluster.
    pub(crate) name: String,
    /// Its persistent directory.
    pub(crate) state_dir: PathBuf,
    /// The `up` that made it.
    pub(crate) supervisor: ProcessId,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Where the API server listens on the host.
    pub(crate) api: SocketAddr,
    /// Names of its nodes.
    pub(crate) nodes: Vec<String>,
    /// What was made, oldest first.
    pub(crate) items: Vec<Item>,
}

impl Record {
    /// Reads a cluster's ledger; none when there is no such cluster.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(problem) => return Err(problem).with_context(|| format!("cannot read {}", path.display())),
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let unreadable =
            || format!("{} is damaged; remove it, then run `fairlead down` again", path.display());
        let Versioned { version } = serde_json::from_str(&text).with_context(unreadable)?;
        if version > VERSION {
            bail!(
                "{} was written by a newer fairlead (format {version}, this one knows {VERSION}); use that one",
                path.display()
            );
        }
        serde_json::from_str(&text).with_context(unreadable).map(Some)
    }

    /// The recorded child processes.
    pub(crate) fn processes(&self) -> impl Iterator<Item = ProcessId> {
        self.items.iter().filter_map(|item| match item {
            Item::Process { id, .. } => Some(*id),
            _ => None,
        })
    }

    fn add(&mut self, item: Item) {
        if let Item::Process { role, .. } = &item {
            self.items.retain(|other| !matches!(other, Item::Process { role: r, .. } if r == role));
        }
        if !self.items.contains(&item) {
            self.items.push(item);
        }
    }
}

/// The ledger of a cluster that this process makes. Clones are the same ledger.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    record: Arc<Mutex<Record>>,
}

impl Ledger {
    /// Starts a ledger for a new cluster.
    pub(crate) fn create(paths: &ClusterPaths, api: SocketAddr, nodes: Vec<String>) -> anyhow::Result<Self> {
        let supervisor = ProcessId::own().context("cannot read /proc/self/stat; is /proc mounted?")?;
        let record = Record {
            version: VERSION,
            name: paths.name.clone(),
            state_dir: paths.state.clone(),
            supervisor,
            phase: Phase::Starting,
            api,
            nodes,
            items: vec![Item::Directory { path: paths.run.clone() }],
        };
        write(&paths.ledger(), &record)?;
        Ok(Self { path: paths.ledger(), record: Arc::new(Mutex::new(record)) })
    }

    /// Writes down what is made next (or, for a process, what has just begun).
    pub(crate) fn add(&self, item: Item) -> anyhow::Result<()> {
        self.change(|record| record.add(item))
    }

    /// Writes down how far the cluster is.
    pub(crate) fn set_phase(&self, phase: Phase) -> anyhow::Result<()> {
        self.change(|record| record.phase = phase)
    }

    /// A copy of what it says.
    pub(crate) fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        write(&self.path, &record)
    }
}

/// Replaces the file in one step. It lives on a tmpfs: it need not survive the machine, as what it names does not.
fn write(path: &Path, record: &Record) -> anyhow::Result<()> {
    let attempt = || -> anyhow::Result<()> {
        let new = path.with_extension("json.new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        Ok(fs::rename(&new, path)?)
    };
    attempt().with_context(|| format!("cannot write the ledger {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Item, Ledger, Phase, Record};
    use crate::{paths::ClusterPaths, system::processes::ProcessId};

    fn ledger() -> (tempfile::TempDir, ClusterPaths, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let paths = ClusterPaths::new("blue", Some(dir.path().join("state")), Some(dir.path().to_owned()));
        let ledger =
            Ledger::create(&paths, "127.0.0.1:6443".parse().unwrap(), vec!["node-1".into()]).unwrap();
        (dir, paths, ledger)
    }

    #[test]
    fn what_is_added_is_on_disk_at_once() {
        let (_dir, paths, ledger) = ledger();
        ledger.add(Item::Netns { name: "blue-node-1".into() }).unwrap();
        ledger.set_phase(Phase::Ready).unwrap();
        let read = Record::read(&paths.ledger()).unwrap().unwrap();
        assert_eq!(read, ledger.record());
        assert_eq!(read.phase, Phase::Ready);
        assert!(read.items.contains(&Item::Netns { name: "blue-node-1".into() }));
        assert!(read.supervisor.is_alive());
    }

    #[test]
    fn a_restarted_child_replaces_its_former_life() {
        let (_dir, _paths, ledger) = ledger();
        for pid in [10, 11] {
            let id = ProcessId { pid, start_ticks: 1 };
            ledger.add(Item::Process { role: "server".into(), id }).unwrap();
        }
        let pids: Vec<_> = ledger.record().processes().map(|p| p.pid).collect();
        assert_eq!(pids, [11]);
    }

    #[test]
    fn a_missing_ledger_is_none_and_a_newer_or_damaged_one_is_refused() {
        let (_dir, paths, _ledger) = ledger();
        assert_eq!(Record::read(&paths.run.join("other.json")).unwrap(), None);
        fs::write(paths.ledger(), r#"{"version": 99, "shape": "unknown"}"#).unwrap();
        assert!(Record::read(&paths.ledger()).unwrap_err().to_string().contains("newer fairlead"));
        fs::write(paths.ledger(), "{").unwrap();
        assert!(Record::read(&paths.ledger()).unwrap_err().to_string().contains("damaged"));
    }
}
