//! What other modes left: which this node has used is kept in a file, so that rules of others with the same names, a
//! kube-proxy's for one, are never taken for ours.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fairlead_kernel::{
    Carriage, KernelError, iptables as kernel_iptables, ipvs as kernel_ipvs, is_pinned, nft,
    retire_ebpf_services, retire_masquerade,
};
use fairlead_plan::{
    ProxyMode,
    classic::Family,
    iptables::{
        self,
        fixed::{JUMPS, Jump, Table},
    },
    ipvs,
};

use super::{localnet, notes};
use crate::{AgentError, agent::lock, network::Network};

/// In an agent's state directory: the modes that its node has used, a line each.
pub const MODES_FILE: &str = "proxy-modes";

/// Beside it: virtual servers of IPVS at addresses that the node has anyway.
pub(super) const SERVERS_FILE: &str = "ipvs-servers";

/// All files there that say what modes have left.
pub const LEFTOVER_FILES: &[&str] = &[MODES_FILE, localnet::FILE, SERVERS_FILE];

/// The modes that may have left something in the kernel.
#[derive(Debug)]
pub(crate) struct Leftovers {
    state_dir: PathBuf,
    bpffs_dir: PathBuf,
    mode: ProxyMode,
    others: BTreeSet<ProxyMode>,
}

impl Leftovers {
    /// Reads the file and adds the mode that is about to be used.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn open(state_dir: &Path, bpffs_dir: &Path, mode: ProxyMode) -> Result<Self, AgentError> {
        // Before there was the file there was this mode only.
        let unwritten = || is_pinned(bpffs_dir).then_some(ProxyMode::Ebpf).into_iter().collect();
        let known = notes::read(&state_dir.join(MODES_FILE))?;
        let mut others: BTreeSet<ProxyMode> = known.unwrap_or_else(unwritten);
        others.remove(&mode);
        let (state_dir, bpffs_dir) = (state_dir.to_owned(), bpffs_dir.to_owned());
        let leftovers = Self { state_dir, bpffs_dir, mode, others };
        leftovers.write()?;
        Ok(leftovers)
    }

    /// Whether there is nothing to remove.
    pub(crate) fn is_empty(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether pods' packets went past the host's stack before.
    pub(crate) fn had_shortcuts(&self) -> bool {
        self.others.contains(&ProxyMode::Ebpf)
    }

    /// Who carries services, given who did.
    pub(crate) fn carriage(&self) -> Carriage {
        match self.mode {
            ProxyMode::Ebpf if self.others.is_empty() => Carriage::Programs,
            ProxyMode::Ebpf => Carriage::ProgramsSoon,
            _ => Carriage::Rules,
        }
    }

    /// Lets this mode be the only one, once it carries every service. Packets pass the host's stack by when no rule is left
    /// there: one that saw half of a connection would drop what it cannot place.
    ///
    /// # Errors
    /// Something cannot be removed; call again.
    pub(crate) async fn take_over(&mut self, network: &Network) -> Result<(), AgentError> {
        for mode in self.others.clone() {
            tracing::info!(%mode, "removing what another proxy mode left");
            remove(mode, Some(self.mode), &self.state_dir, &self.bpffs_dir).await?;
            self.others.remove(&mode);
            self.write()?;
        }
        match self.mode {
            ProxyMode::Ebpf => network.use_shortcuts().await,
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<(), AgentError> {
        Ok(notes::write(&self.state_dir.join(MODES_FILE), self.others.iter().chain([&self.mode]))?)
    }
}

/// Removes what a mode made, but for what the mode `kept` makes as well.
pub(crate) async fn remove(
    mode: ProxyMode,
    kept: Option<ProxyMode>,
    state_dir: &Path,
    bpffs_dir: &Path,
) -> Result<(), KernelError> {
    let kept_jumps = match kept {
        Some(ProxyMode::Iptables) => JUMPS,
        Some(ProxyMode::Ipvs) => ipvs::rules::JUMPS,
        _ => &[],
    };
    let stale = |jumps: &[Jump]| -> Vec<Jump> {
        jumps.iter().filter(|jump| !kept_jumps.iter().any(|kept| kept.same(jump))).copied().collect()
    };
    let is_kept = move |table: Table, chain: &str| match kept {
        Some(ProxyMode::Iptables) => iptables::saved::is_ours(table, chain),
        Some(ProxyMode::Ipvs) => ipvs::rules::is_ours(table, chain),
        _ => false,
    };
    match mode {
        ProxyMode::Ebpf => {
            retire_ebpf_services(bpffs_dir)?;
            retire_masquerade(bpffs_dir).await?;
        }
        ProxyMode::Iptables => {
            // Before the rule goes that guards loopback.
            localnet::put_back(state_dir)?;
            for family in Family::ALL {
                let ours = |table: Table, chain: &str| {
                    iptables::saved::is_ours(table, chain) && !is_kept(table, chain)
                };
                kernel_iptables::remove(family, ours, &stale(JUMPS)).await?;
            }
        }
        ProxyMode::Nftables => {
            for family in Family::ALL {
                nft::remove(family).await?;
            }
        }
        ProxyMode::Ipvs => {
            let servers = state_dir.join(SERVERS_FILE);
            // Servers first: packets to them then go by the rules of the mode that took over.
            kernel_ipvs::remove(&notes::read(&servers)?.unwrap_or_default()).await?;
            for family in Family::ALL {
                let ours =
                    |table: Table, chain: &str| ipvs::rules::is_ours(table, chain) && !is_kept(table, chain);
                kernel_ipvs::remove_rules(family, ours, &stale(ipvs::rules::JUMPS)).await?;
            }
            notes::forget(&servers)?;
        }
    }
    Ok(())
}

/// Removes what every mode that this node has used left behind. Returns the modes.
///
/// # Errors
/// An agent runs, or a kube-proxy to which rules of that name belong by now, or something cannot be removed; call again.
pub async fn clean_up(state_dir: &Path, bpffs_dir: &Path) -> Result<Vec<ProxyMode>, AgentError> {
    let _alone = state_dir.exists().then(|| lock(state_dir)).transpose()?;
    let path = state_dir.join(MODES_FILE);
    let modes: BTreeSet<ProxyMode> = notes::read(&path)?.unwrap_or_default();
    if modes.iter().any(|mode| *mode != ProxyMode::Ebpf) {
        fairlead_kernel::require_no_kube_proxy()?;
    }
    for mode in &modes {
        remove(*mode, None, state_dir, bpffs_dir).await?;
    }
    notes::forget(&path)?;
    Ok(modes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_mode_is_remembered_until_the_next_one_has_taken_over() {
        // Without a dot, which names of pins do not have.
        let directory = tempfile::Builder::new().prefix("fltest-").tempdir().expect("a directory");
        let pins = directory.path().join("pins");
        fs::create_dir_all(pins.join("maps")).expect("a directory");
        let open = |mode| Leftovers::open(directory.path(), &pins, mode).expect("opens");
        let first = open(ProxyMode::Nftables);
        assert_eq!(first.others, BTreeSet::from([ProxyMode::Ebpf]), "what there was before the file");
        // It ended before it had taken over.
        let second = open(ProxyMode::Ebpf);
        assert_eq!(second.others, BTreeSet::from([ProxyMode::Nftables]));
        assert_eq!(second.carriage(), Carriage::ProgramsSoon);
        let third = open(ProxyMode::Ipvs);
        assert_eq!(third.others, BTreeSet::from([ProxyMode::Ebpf, ProxyMode::Nftables]));
        assert_eq!(third.carriage(), Carriage::Rules);
    }

    #[test]
    fn a_node_that_was_never_used_has_nothing_to_remove() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Leftovers::open(directory.path(), Path::new("/nowhere"), ProxyMode::Iptables);
        assert!(first.expect("opens").is_empty());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_replaced_or_is_of_another_version_stays_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (modes, new) = (directory.path().join(MODES_FILE), directory.path().join("proxy-modes.new"));
        let open = |mode| Leftovers::open(directory.path(), Path::new("/nowhere"), mode);
        open(ProxyMode::Nftables).expect("opens");
        fs::create_dir(&new).expect("in the way of the new file");
        let error = open(ProxyMode::Ipvs).expect_err("it cannot be written").to_string();
        assert!(error.contains("proxy-modes"), "{error}");
        assert_eq!(fs::read_to_string(&modes).expect("it is there"), "nftables\n");
        fs::remove_dir(&new).expect("it is empty");

        let newer = "nftables\nfaster\n";
        fs::write(&modes, newer).expect("writes");
        let cleaned = clean_up(directory.path(), Path::new("/nowhere")).await.map(drop);
        for refused in [open(ProxyMode::Nftables).map(drop), cleaned] {
            let error = refused.expect_err("nobody knows what it left").to_string();
            assert!(error.contains("does not know \"faster\""), "{error}");
        }
        assert_eq!(fs::read_to_string(&modes).expect("it is there"), newer);
    }

    #[test]
    fn a_node_that_only_knows_one_mode_has_nothing_to_remove() {
        let directory = tempfile::tempdir().expect("a directory");
        let open =
            || Leftovers::open(directory.path(), Path::new("/nowhere"), ProxyMode::Ebpf).expect("opens");
        assert!(open().others.is_empty());
        assert_eq!(open().carriage(), Carriage::Programs);
    }
}
