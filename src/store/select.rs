//! The flags that choose a store.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use clap::{Args, ValueEnum};
use fairlead_store::{Durability, EmbeddedConfig, EmbeddedStore, EtcdConfig, EtcdStore, EtcdTls, Store};

use crate::cli::absolute_path;

/// The kinds of store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Kind {
    /// A file below the state directory
    #[default]
    Embedded,
    /// etcd, version 3.4 or later
    Etcd,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Level {
    /// When it is on disk
    #[default]
    Synced,
    /// Before that: a crash may take back what was written last
    Deferred,
}

/// What an acknowledged write has survived in the embedded store.
#[derive(Clone, Debug, Args)]
pub(crate) struct DurabilityArgs {
    /// When the embedded store acknowledges a write
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub(crate) store_durability: Level,
    /// Milliseconds until a deferred write is on disk: so much may be lost in a crash [default: 1000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub(crate) store_sync_interval: Option<u32>,
}

/// How etcd is reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "etcd")]
pub(crate) struct EtcdArgs {
    /// Client URL of a member of etcd; may be repeated, or several with commas
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',')]
    etcd_endpoints: Vec<String>,
    /// What every key in etcd begins with
    #[arg(long, global = true, value_name = "PREFIX", default_value = "/registry", value_parser = prefix)]
    etcd_prefix: String,
    /// Authorities that etcd's certificate is checked against, PEM
    #[arg(long, global = true, value_name = "FILE", value_parser = absolute_path)]
    etcd_cafile: Option<PathBuf>,
    /// Certificate to show to etcd, PEM
    #[arg(long, global = true, value_name = "FILE", value_parser = absolute_path, requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, global = true, value_name = "FILE", value_parser = absolute_path, requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
}

impl Kind {
    /// Opens or connects to the store of a server.
    pub(crate) async fn open(
        self,
        state_dir: &Path,
        durability: &DurabilityArgs,
        etcd: &EtcdArgs,
    ) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Embedded => {
                if !etcd.etcd_endpoints.is_empty() {
                    bail!("--etcd-endpoints is of no use without --store etcd");
                }
                let durability = durability.durability()?;
                let config = EmbeddedConfig { durability, ..embedded_config(state_dir) };
                Ok(Arc::new(EmbeddedStore::open(&config)?))
            }
            Self::Etcd => {
                if !durability.flags().is_empty() {
                    bail!("--store-durability is of no use with --store etcd, which syncs every write");
                }
                Ok(Arc::new(etcd.connect().await?))
            }
        }
    }
}

/// The longest time for which a deferred write is not on disk, unless another is given.
const SYNC_INTERVAL_MS: u32 = 1_000;

impl Kind {
    /// The store in a few words.
    pub(crate) fn said(self, durability: &DurabilityArgs) -> String {
        match (self, durability.store_durability) {
            (Self::Etcd, _) => "etcd".to_owned(),
            (Self::Embedded, Level::Synced) => "embedded, synced".to_owned(),
            (Self::Embedded, Level::Deferred) => {
                format!("embedded, deferred by up to {} ms", durability.interval_ms())
            }
        }
    }
}

impl DurabilityArgs {
    fn interval_ms(&self) -> u32 {
        self.store_sync_interval.unwrap_or(SYNC_INTERVAL_MS)
    }

    /// The flags that differ from the defaults, for another command line.
    pub(crate) fn flags(&self) -> Vec<(&'static str, OsString)> {
        let level =
            (self.store_durability == Level::Deferred).then(|| ("--store-durability", "deferred".into()));
        let interval = self.store_sync_interval.map(|ms| ("--store-sync-interval", ms.to_string().into()));
        level.into_iter().chain(interval).collect()
    }

    fn durability(&self) -> anyhow::Result<Durability> {
        match (self.store_durability, self.store_sync_interval) {
            (Level::Synced, None) => Ok(Durability::Synced),
            (Level::Synced, Some(_)) => {
                bail!("--store-sync-interval is of no use without --store-durability deferred")
            }
            (Level::Deferred, _) => {
                Ok(Durability::Deferred { interval: Duration::from_millis(self.interval_ms().into()) })
            }
        }
    }
}

impl EtcdArgs {
    /// Connects, waiting for etcd for a while.
    pub(crate) async fn connect(&self) -> anyhow::Result<EtcdStore> {
        if self.etcd_endpoints.is_empty() {
            bail!("etcd needs --etcd-endpoints, such as https://192.0.2.1:2379");
        }
        Ok(EtcdStore::connect(&self.config()).await?)
    }

    fn config(&self) -> EtcdConfig {
        EtcdConfig {
            prefix: self.etcd_prefix.clone(),
            tls: EtcdTls {
                ca_file: self.etcd_cafile.clone(),
                cert_file: self.etcd_certfile.clone(),
                key_file: self.etcd_keyfile.clone(),
            },
            ..EtcdConfig::new(self.etcd_endpoints.clone())
        }
    }
}

/// The embedded store of a state directory.
pub(crate) fn embedded_config(state_dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig::new(state_dir.join("store"))
}

fn prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.len() > 1 && trimmed.starts_with('/') {
        Ok(trimmed.to_owned())
    } else {
        Err("begin with a slash and a name, as /registry does".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn a_prefix_is_a_path() {
        assert_eq!(prefix("/registry/").unwrap(), "/registry");
        for bad in ["", "/", "registry"] {
            assert!(prefix(bad).is_err(), "{bad:?}");
        }
    }
}
