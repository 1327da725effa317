//! Command lines, machines and state directories that cannot work: what is said, the exit code, nothing made.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use fairlead_bench::cluster::{Cluster, ClusterSpec, binary};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use tokio::process::Command;

use crate::support::{eventually, leftovers, spec};

/// The store's table of numbers, and the name of its layout in it.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const LAYOUT: &str = "layout";

/// Runs what follows as nobody.
const NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
/// Runs what follows where containerd is not installed.
const BARE: &[&str] = &["env", "PATH=/nonexistent"];
/// Runs what follows in a mount namespace without cgroup v2.
const NO_CGROUP2: &[&str] = &["unshare", "-m", "sh", "-c", r#"umount -l -a -t cgroup2; exec "$@""#, "sh"];
/// Runs what follows in a mount namespace where the kernel has no type information.
const NO_BTF: &[&str] =
    &["unshare", "-m", "sh", "-c", r#"mount -t tmpfs none /sys/kernel/btf; exec "$@""#, "sh"];

/// Before the program, subcommand, further arguments, exit code, words that must be said.
type Refusal = (&'static [&'static str], &'static str, &'static [&'static str], i32, &'static [&'static str]);

const REFUSALS: &[Refusal] = &[
    (NOBODY, "up", &[], 1, &["`fairlead up` needs root", "sudo fairlead up"]),
    (NOBODY, "down", &[], 1, &["`fairlead down` needs root", "sudo fairlead down"]),
    (BARE, "up", &[], 1, &["containerd is not in PATH", "apt-get install containerd", "--containerd"]),
    (NO_CGROUP2, "up", &[], 1, &["no cgroup2 file system is mounted", "mount -t cgroup2"]),
    (NO_BTF, "up", &[], 1, &["this kernel lacks type information (BTF)", "CONFIG_DEBUG_INFO_BTF=y"]),
    (
        &[],
        "up",
        &["--images", "/nonexistent"],
        1,
        &["--images /nonexistent is not a directory", "OCI image archives"],
    ),
    (
        &[],
        "up",
        &["--containerd", "/nonexistent"],
        1,
        &["no containerd answers on /nonexistent", "--containerd"],
    ),
    (&[], "up", &["--api-port", "99999"], 2, &["--api-port", "99999 is not in"]),
    (&[], "up", &["--nodes", "0"], 2, &["--nodes", "0 is not in 1.."]),
    (&[], "up", &["--node-monitor-grace", "5"], 2, &["--node-monitor-grace", "5 is not in 12.."]),
    (&[], "status", &[], 1, &["does not run here", "start it with `fairlead up`", "--name"]),
    (&[], "flows", &["--verdict", "maybe"], 2, &["--verdict", "possible values: forwarded, denied"]),
];

/// The same for subcommands that belong to no development cluster.
const DAEMON_REFUSALS: &[(&[&str], i32, &[&str])] = &[
    (&["node", "--proxy-mode", "magic"], 2, &["\"magic\" is not a proxy mode", "ebpf"]),
    (&["node", "--node-ip", "1.2.3"], 2, &["'1.2.3' for '--node-ip", "invalid IP address"]),
    (
        &["node", "--kubeconfig", "/nonexistent"],
        1,
        &["cannot read the kubeconfig /nonexistent", "`fairlead kubeconfig` makes one"],
    ),
    (&["server", "--listen", "1.2.3"], 2, &["'1.2.3' for '--listen", "invalid socket address"]),
    (&["server", "--service-cidr", "10.96.0.0/33"], 2, &["'10.96.0.0/33' for '--service-cidr"]),
    (
        &["server", "--listen", "192.0.2.1:17464"],
        1,
        &["cannot listen on 192.0.2.1:17464", "no interface", "--listen"],
    ),
    (
        &[
            "server",
            "--state-dir",
            "/dev/null/x",
            "--listen",
            "127.0.0.1:17464",
            "--feed-listen",
            "127.0.0.1:17465",
        ],
        1,
        &["/dev/null/x"],
    ),
];

/// Whatever is checked before anything is made.
pub(crate) async fn before_a_cluster_is_made() -> Result<()> {
    let cluster = Cluster::planned(spec("refused", 17_464));
    fs::create_dir_all(&cluster.spec().folder)?;
    for (wrapper, subcommand, arguments, code, words) in REFUSALS {
        let said =
            refused(wrapped(wrapper, cluster.fairlead(subcommand)?.args(*arguments)), *code, words).await?;
        ensure_nothing_made(cluster.spec()).with_context(|| said)?;
    }
    for (arguments, code, words) in DAEMON_REFUSALS {
        refused(Command::new(binary()?).args(*arguments), *code, words).await?;
    }
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?;
    let mut up = cluster.fairlead("up")?;
    up.args(["--api-port", &address.port().to_string()]);
    refused(
        &mut up,
        1,
        &[&format!("cannot listen on {address}"), "another process listens there", "--api-port"],
    )
    .await?;
    ensure_nothing_made(cluster.spec())?;
    fs::remove_dir(&cluster.spec().folder).context("the folder of refused clusters is not empty")
}

/// Neither kernel objects nor files.
fn ensure_nothing_made(spec: &ClusterSpec) -> Result<()> {
    let files = fs::read_dir(&spec.folder)?.map(|entry| Ok(entry?.path().display().to_string()));
    let made: Vec<_> = files.chain(leftovers(spec).into_iter().map(Ok)).collect::<Result<_>>()?;
    ensure!(made.is_empty(), "this was made: {made:?}");
    Ok(())
}

/// The state directory of a server that runs.
pub(crate) async fn state_in_use() -> Result<()> {
    let folder = spec("locked", 0).folder;
    let server = |port: u16| -> Result<Command> {
        let mut command = Command::new(binary()?);
        command
            .arg("server")
            .arg("--state-dir")
            .arg(&folder)
            .args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--feed-listen", &format!("127.0.0.1:{}", port + 1)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(command)
    };
    let mut first = server(17_466)?.spawn()?;
    let pid = first.id().context("the first server ended at once")?;
    let outcome = async {
        let kubeconfig = folder.join("admin.kubeconfig");
        eventually("a server writes a kubeconfig", async || Ok(kubeconfig.exists().then_some(()))).await?;
        let words = ["is in use by process", &pid.to_string(), "choose another directory"];
        refused(&mut server(17_468)?, 1, &words).await
    };
    let outcome = outcome.await;
    first.kill().await?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    outcome.map(drop)
}

/// A store that a later version has written is not touched, and nothing of a cluster is left running beside it.
pub(crate) async fn state_of_a_newer_version() -> Result<()> {
    let cluster = Cluster::planned(spec("newer", 17_464));
    let store = cluster.state_dir().join("store");
    fs::create_dir_all(&store)?;
    let file = store.join("store.redb");
    let write = || -> Result<()> {
        let database = Database::create(&file)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(LAYOUT, 7)?;
        Ok(transaction.commit()?)
    };
    write()?;
    let words = ["was written by a newer version (layout 7", "start that newer version, or restore a backup"];
    let outcome = refused(&mut cluster.up_command()?, 1, &words).await;
    let (layout, left) = (layout(&file), leftovers(cluster.spec()));
    let run_dir = cluster.run_dir().exists();
    cluster.down().await?;
    let said = outcome?;
    ensure!(left.is_empty() && !run_dir, "after {said}\nthis was left: {left:?}");
    ensure!(layout? == Some(7), "the newer version's store was changed");
    Ok(())
}

/// The layout of a store that holds nothing else.
fn layout(file: &Path) -> Result<Option<u64>> {
    let database = Database::open(file)?;
    let transaction = database.begin_read()?;
    let (tables, meta) = (transaction.list_tables()?.count(), transaction.open_table(META)?);
    let layout = meta.get(LAYOUT)?.map(|found| found.value());
    Ok(layout.filter(|_| tables == 1 && meta.len().is_ok_and(|len| len == 1)))
}

/// The program of `command` and its arguments, started through `wrapper`.
fn wrapped<'a>(wrapper: &[&str], command: &'a mut Command) -> &'a mut Command {
    let Some((program, rest)) = wrapper.split_first() else { return command };
    let inner = command.as_std();
    let mut outer = Command::new(program);
    outer.args(rest).arg(inner.get_program()).args(inner.get_args()).kill_on_drop(true);
    *command = outer;
    command
}

/// Fails unless the command ends with `code` and says all `words` in one error; returns what it said.
async fn refused(command: &mut Command, code: i32, words: &[&str]) -> Result<String> {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output().await?;
    let line = command.as_std();
    let said = format!("{line:?}\nended with {status} and said:\n{}", String::from_utf8_lossy(&stderr));
    ensure!(status.code() == Some(code), "{said}\nexpected exit code {code}");
    for word in words {
        ensure!(said.contains(word), "{said}\nexpected {word:?}");
    }
    ensure!(said.matches("error: ").count() == 1, "{said}\nexpected one error");
    ensure!(!said.contains("panicked") && !said.contains("Error {"), "{said}\nexpected a sentence");
    Ok(said)
}
