//! Named network namespaces, the way ip-netns(8) keeps them, and threads that work inside one.

use std::{
    fs,
    fs::File,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, anyhow};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use tokio::sync::oneshot;

/// Makes a network namespace and binds it to `path`.
pub(crate) async fn create(path: PathBuf) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let what = format!("cannot make the network namespace {}", path.display());
    on_thread(move || {
        File::create(&path)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?;
        Ok(())
    })
    .await
    .context(what)
}

/// Runs `work` on a thread of its own inside the namespace.
pub(crate) async fn inside<T, F>(path: &Path, work: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> anyhow::Result<T> + Send + 'static,
{
    let path = path.to_owned();
    on_thread(move || {
        let enter = || -> anyhow::Result<()> { Ok(setns(File::open(&path)?, CloneFlags::CLONE_NEWNET)?) };
        enter().with_context(|| format!("cannot enter the network namespace {}", path.display()))?;
        work()
    })
    .await
}

/// Runs asynchronous `work` inside the namespace.
pub(crate) async fn inside_async<T, F, W>(path: &Path, work: W) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
    W: FnOnce() -> F + Send + 'static,
{
    inside(path, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })
    .await
}

/// Takes a name away; the namespace goes with the last process in it. A name that is not there is no error.
pub(crate) fn remove(path: &Path) -> bool {
    let unmounted = umount2(path, MntFlags::MNT_DETACH).is_ok();
    fs::remove_file(path).is_ok() || unmounted
}

/// A namespace belongs to a thread; a thread that has changed its own must not be used for anything else.
async fn on_thread<T, F>(work: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> anyhow::Result<T> + Send + 'static,
{
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("netns".to_owned()).spawn(move || {
        // Nobody waits any more when the command was interrupted.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| anyhow!("the thread in the network namespace ended early"))?
}
