//! One copy: pages from a source through a counter to a target, and the target read again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use fairlead_store::{
    EmbeddedConfig, EmbeddedStore, Revision, Store,
    transfer::{self, PAGES_MAX, Page, Snapshot, Summary},
};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use crate::output;

/// What is read.
pub(super) enum Source {
    /// A store.
    Store(Arc<dyn Store>),
    /// A file that was found whole.
    Snapshot(Arc<Snapshot>),
}

/// What is filled.
#[derive(Clone)]
pub(super) enum Target {
    /// A snapshot file.
    File(PathBuf),
    /// The embedded store in a directory.
    Embedded(EmbeddedConfig),
    /// etcd.
    Etcd(Arc<dyn Store>),
}

/// Copies, reads the copy again, compares, and says so.
pub(super) async fn run(source: Source, target: Target) -> anyhow::Result<()> {
    let revision = match &source {
        Source::Store(store) => store.revision().await?,
        Source::Snapshot(snapshot) => snapshot.revision,
    };
    let (pages, from_source) = mpsc::channel(PAGES_MAX);
    let (to_target, received) = mpsc::channel(PAGES_MAX);
    let (all_sent, sent) = oneshot::channel();
    let reading = async {
        let summary = read(&source, revision, pages).await?;
        // The target that no longer listens has an error of its own.
        let _ = all_sent.send(summary.clone());
        anyhow::Ok(summary)
    };
    let writing = write(target.clone(), revision, received, sent);
    let (read, (), written) = tokio::join!(reading, count(from_source, to_target), writing);
    // A source that failed is why the target is incomplete; a target that failed is why the source stopped.
    let expected = read?;
    written?;
    // The store of the source is closed before the target's is read: they may be the same machine's memory.
    drop(source);
    let found = read_again(&target).await.context("cannot read the copy again")?;
    if found != expected {
        bail!("the copy has {} entries and differs from the source's {}", found.entries, expected.entries);
    }
    report(&target, revision, &expected).await
}

async fn read(source: &Source, revision: Revision, pages: mpsc::Sender<Page>) -> anyhow::Result<Summary> {
    match source {
        Source::Store(store) => Ok(transfer::export(&**store, revision, pages).await?),
        Source::Snapshot(snapshot) => {
            let snapshot = snapshot.clone();
            let summary = snapshot.summary.clone();
            spawn_blocking(move || snapshot.send(&pages)).await??;
            Ok(summary)
        }
    }
}

/// Passes pages on and shows how many entries passed.
async fn count(mut pages: mpsc::Receiver<Page>, onward: mpsc::Sender<Page>) {
    let style = ProgressStyle::with_template("{spinner} {human_pos} entries copied ({per_sec})");
    let bar =
        ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    while let Some(page) = pages.recv().await {
        let entries = page.len() as u64;
        if onward.send(page).await.is_err() {
            break;
        }
        bar.inc(entries);
    }
    bar.finish_and_clear();
}

async fn write(
    target: Target,
    revision: Revision,
    mut pages: mpsc::Receiver<Page>,
    sent: oneshot::Receiver<Summary>,
) -> anyhow::Result<()> {
    let complete = |got: &Summary| sent.blocking_recv().is_ok_and(|sent| sent == *got);
    match target {
        Target::File(path) => {
            spawn_blocking(move || Snapshot::write(&path, revision, &mut pages, complete)).await??;
        }
        Target::Embedded(config) => {
            let import = move || EmbeddedStore::open(&config)?.import(revision, &mut pages, complete);
            spawn_blocking(import).await??;
        }
        Target::Etcd(store) => {
            transfer::fill(&store, &mut pages).await?;
            // What clients remember of the other store is from before this history.
            store.compact(store.revision().await?).await?;
        }
    }
    Ok(())
}

async fn read_again(target: &Target) -> anyhow::Result<Summary> {
    match target {
        Target::File(path) => {
            let path = path.clone();
            Ok(spawn_blocking(move || Snapshot::open(&path)).await??.summary)
        }
        Target::Embedded(config) => Ok(transfer::summarize(&EmbeddedStore::open(config)?).await?),
        Target::Etcd(store) => Ok(transfer::summarize(&**store).await?),
    }
}

async fn report(target: &Target, revision: Revision, summary: &Summary) -> anyhow::Result<()> {
    let digest: String = summary.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    output::line(&format!(
        "copied {} entries of revision {revision}; read again and equal, SHA-256 {digest}",
        summary.entries
    ))?;
    if let Target::Etcd(store) = target {
        let current = store.revision().await?;
        output::line(&format!(
            "etcd gave them revisions of its own, up to {current}: restart all nodes and other clients with the server"
        ))?;
    }
    Ok(())
}
