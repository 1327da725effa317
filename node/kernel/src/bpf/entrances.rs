//! Interfaces by which clients outside come: the uplink's programs are on each of them. Those of the uplink itself are
//! attached with the others; here is what comes and goes.

use std::collections::{BTreeMap, BTreeSet};

use super::programs::Programs;
use crate::KernelError;

/// The interfaces that have the programs.
#[derive(Debug)]
pub(crate) struct Entrances {
    /// The uplink, by name and with its index.
    uplink: (String, u32),
    /// By name, with their index.
    attached: BTreeMap<String, u32>,
    /// Those that would not take them, of which somebody has been told.
    failed: BTreeSet<(String, u32)>,
}

impl Entrances {
    pub(crate) const fn new(uplink: String, index: u32) -> Self {
        Self { uplink: (uplink, index), attached: BTreeMap::new(), failed: BTreeSet::new() }
    }

    /// Gives these interfaces the programs and takes them from all others, also from those that a former process gave them
    /// to. One that refuses them, or is going away, keeps nobody else from being served.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub(crate) fn set(
        &mut self,
        programs: &mut Programs,
        wanted: &BTreeMap<String, u32>,
    ) -> Result<Vec<String>, KernelError> {
        for (name, index) in wanted {
            if *index == self.uplink.1 || self.attached.get(name) == Some(index) {
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
        programs.keep_uplinks(wanted.keys().chain([&self.uplink.0]))?;
        self.attached.retain(|name, index| wanted.get(name) == Some(index));
        self.failed.retain(|(name, index)| wanted.get(name) == Some(index));
        let has =
            |(name, index): &(&String, &u32)| **index == self.uplink.1 || self.attached.contains_key(*name);
        Ok(wanted.iter().filter(has).map(|(name, _)| name.clone()).collect())
    }
}
