//! Interfaces by which clients outside come: the uplink's programs are on each of them. Those of the uplink itself are
//! attached with the others; here is what comes and goes.

use std::collections::{BTreeMap, BTreeSet};

use super::programs::Programs;
use crate::KernelError;

/// The interfaces that have the programs.
#[derive(Debug, Default)]
pub(crate) struct Entrances {
    /// By name, with their index.
    attached: BTreeMap<String, u32>,
    /// Those that would not take them, of which somebody has been told.
    failed: BTreeSet<(String, u32)>,
}

impl Entrances {
    /// Gives these interfaces the programs and takes them from all others but the uplink, also from those that a former
    /// process gave them to. One that refuses them, or is going away, keeps nobody else from being served.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub(crate) fn set(
        &mut self,
        programs: &mut Programs,
        uplink: &str,
        wanted: &BTreeMap<String, u32>,
    ) -> Result<Vec<String>, KernelError> {
        for (name, index) in wanted {
            if name == uplink || self.attached.get(name) == Some(index) {
                continue;
            }
            match programs.attach_uplink(name, *index) {
                Ok(()) => {
                    tracing::info!(interface = name, "clients are served on another interface");
                    self.attached.insert(name.clone(), *index);
                }
                Err(error) if self.failed.insert((name.clone(), *index)) => {
                    tracing::warn!(%error, "clients that come by {name} are not served");
                }
                Err(_) => {}
            }
        }
        programs.keep_uplinks(wanted.keys().map(String::as_str).chain([uplink]))?;
        self.attached.retain(|name, index| wanted.get(name) == Some(index));
        self.failed.retain(|(name, index)| wanted.get(name) == Some(index));
        let has = |name: &&String| *name == uplink || self.attached.contains_key(*name);
        Ok(wanted.keys().filter(has).cloned().collect())
    }
}
