//! `fairlead store`: what objects are stored in, saved and moved.

pub(crate) mod select;

mod copy;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use fairlead_store::{EmbeddedStore, Store, transfer::Snapshot};

use crate::{cli::absolute_path, daemon};
use copy::{Source, Target};
use select::{EtcdArgs, Kind};

const EXAMPLES: &str = "\
Examples:
  fairlead store snapshot before-upgrade.snapshot
  fairlead store restore before-upgrade.snapshot --state-dir /var/lib/fairlead-restored
  fairlead store migrate --from embedded --to etcd --etcd-endpoints https://192.0.2.1:2379 --etcd-cafile ca.crt

Stop the server first: the embedded store is of one process at a time, and what is written to etcd meanwhile is not
copied. Certificates (pki in the state directory) are not part of the store.";

/// Arguments of `fairlead store`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    action: Action,
    /// The server's state directory
    #[arg(long, global = true, default_value = "/var/lib/fairlead", value_name = "DIR", value_parser = absolute_path)]
    state_dir: PathBuf,
    /// Where etcd is.
    #[command(flatten)]
    etcd: EtcdArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write everything that is stored into a file, readable by you only: it holds the secrets
    Snapshot {
        /// The file to write
        file: PathBuf,
        /// What to read
        #[arg(long, value_name = "STORE", value_enum, default_value_t)]
        store: Kind,
    },
    /// Fill an empty store from such a file
    Restore {
        /// The file to read
        file: PathBuf,
        /// What to fill
        #[arg(long, value_name = "STORE", value_enum, default_value_t)]
        store: Kind,
    },
    /// Fill an empty store of one kind from one of the other
    Migrate {
        /// What to read
        #[arg(long, value_name = "STORE", value_enum)]
        from: Kind,
        /// What to fill
        #[arg(long, value_name = "STORE", value_enum)]
        to: Kind,
    },
}

/// Copies, compares, and says what was copied.
pub(crate) fn run(args: &StoreArgs) -> anyhow::Result<()> {
    daemon::run(async |stop| {
        tokio::select! {
            outcome = args.run() => outcome,
            () = stop.cancelled() => bail!("interrupted; what was begun is not complete"),
        }
    })
}

impl StoreArgs {
    async fn run(&self) -> anyhow::Result<()> {
        let (source, target) = match &self.action {
            Action::Snapshot { file, store } => (self.source(*store).await?, Target::File(file.clone())),
            Action::Restore { file, store } => {
                let path = file.clone();
                let snapshot = tokio::task::spawn_blocking(move || Snapshot::open(&path)).await??;
                (Source::Snapshot(Arc::new(snapshot)), self.target(*store).await?)
            }
            Action::Migrate { from, to } if from == to => bail!("--from and --to are the same kind of store"),
            Action::Migrate { from, to } => (self.source(*from).await?, self.target(*to).await?),
        };
        copy::run(source, target).await
    }

    async fn source(&self, kind: Kind) -> anyhow::Result<Source> {
        let store: Arc<dyn Store> = match kind {
            Kind::Embedded => {
                let config = select::embedded_config(&self.state_dir);
                if !config.dir.join("store.redb").is_file() {
                    bail!("{} has no store; check --state-dir", self.state_dir.display());
                }
                Arc::new(EmbeddedStore::open(&config).context("the server must be stopped for this")?)
            }
            Kind::Etcd => Arc::new(self.etcd.connect().await?),
        };
        Ok(Source::Store(store))
    }

    async fn target(&self, kind: Kind) -> anyhow::Result<Target> {
        Ok(match kind {
            Kind::Embedded => Target::Embedded(select::embedded_config(&self.state_dir)),
            Kind::Etcd => Target::Etcd(Arc::new(self.etcd.connect().await?)),
        })
    }
}
