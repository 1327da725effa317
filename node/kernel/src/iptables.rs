//! Applying and observing iptables rules, of the variant (legacy or nf_tables) that the machine's `iptables` is.

use fairlead_plan::{
    classic::Family,
    iptables::{
        Restore,
        fixed::{Jump, Table},
        saved::Saved,
    },
};

use crate::{
    KernelError,
    tool::{self, LOCK_WAIT_SECS},
};

const fn save_program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    }
}

const fn restore_program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    }
}

/// All tables.
///
/// # Errors
/// The program is missing or fails, as it does when the kernel has no iptables.
pub async fn observe(family: Family) -> Result<Saved, KernelError> {
    Ok(Saved::parse(&tool::expect(save_program(family), &[], None).await?))
}

/// Applies a restore; every table of it changes at once or not at all.
///
/// # Errors
/// A rule is refused, or another program holds the lock.
pub async fn apply(family: Family, restore: &Restore) -> Result<(), KernelError> {
    apply_text(family, &restore.text).await
}

/// Takes away every chain that is `ours` and every jump to one, and these jumps to others.
///
/// # Errors
/// As for [`apply`].
pub async fn remove(
    family: Family,
    ours: impl Fn(Table, &str) -> bool,
    jumps: &[Jump],
) -> Result<(), KernelError> {
    match observe(family).await?.removal(&ours, jumps) {
        Some(text) => apply_text(family, &text).await,
        None => Ok(()),
    }
}

pub(crate) async fn apply_text(family: Family, text: &str) -> Result<(), KernelError> {
    let arguments = ["--noflush", "--wait", LOCK_WAIT_SECS];
    tool::expect(restore_program(family), &arguments, Some(text)).await.map(drop)
}
