//! Applying and observing our nftables table.

use std::collections::BTreeMap;

use fairlead_plan::{
    classic::Family,
    nftables::{Observed, Scripts, fixed},
};
use serde::Deserialize;

use crate::{KernelError, tool};

/// What `nft -j list table` prints.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<BTreeMap<String, serde_json::Value>>,
}

/// Our table; empty when it is not there.
///
/// # Errors
/// `nft` is missing, the kernel has no nftables, or the listing cannot be read.
pub async fn observe(family: Family) -> Result<Observed, KernelError> {
    let Some(text) = list(&["-j", "list", "table", fixed::protocol(family), fixed::TABLE]).await? else {
        return Ok(Observed::default());
    };
    let listing: Listing = serde_json::from_str(&text)
        .map_err(|error| tool::failure("nft", &format!("its JSON cannot be read: {error}"), None))?;
    Ok(summary(listing))
}

/// A table as `nft` shows it, without what its counters say; none when it is not there.
pub(crate) async fn text_of(protocol: &str, table: &str) -> Result<Option<String>, KernelError> {
    list(&["--stateless", "list", "table", protocol, table]).await
}

/// What is printed of a table; none when it is not there.
async fn list(arguments: &[&str]) -> Result<Option<String>, KernelError> {
    let output = tool::run("nft", arguments, None).await?;
    if output.is_success() {
        return Ok(Some(output.stdout));
    }
    if output.stderr.contains("No such file or directory") {
        return Ok(None);
    }
    Err(output.failure(None))
}

/// Applies scripts, each in one transaction. Returns why the cleaning among them was refused, if it was.
///
/// # Errors
/// Another script is refused; what it says has not happened then.
pub async fn apply(scripts: &Scripts) -> Result<Option<KernelError>, KernelError> {
    let uncleaned = match &scripts.cleaning {
        Some(script) => run(script).await.err(),
        None => None,
    };
    for script in scripts.changes() {
        run(script).await?;
    }
    Ok(uncleaned)
}

/// Applies a script in one transaction.
pub(crate) async fn run(script: &str) -> Result<(), KernelError> {
    tool::expect("nft", &["-f", "-"], Some(script)).await.map(drop)
}

/// Takes the table away.
///
/// # Errors
/// `nft` is missing or fails.
pub async fn remove(family: Family) -> Result<(), KernelError> {
    let table = fixed::table(family);
    // Made first, so that there is something to delete.
    run(&format!("add table {table}\ndelete table {table}\n")).await
}

fn summary(listing: Listing) -> Observed {
    let mut observed = Observed::default();
    for (kind, object) in listing.nftables.into_iter().flatten() {
        let text =
            |key: &str| object.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        match kind.as_str() {
            "chain" => {
                observed.chains.insert(text("name"));
                observed.sizes.entry(text("name")).or_default();
            }
            "rule" => *observed.sizes.entry(text("chain")).or_default() += 1,
            "set" | "map" => {
                let secs = object.get("timeout").and_then(serde_json::Value::as_u64).unwrap_or_default();
                observed.sets.insert(text("name"), u32::try_from(secs).unwrap_or(u32::MAX));
                let elements =
                    object.get("elem").and_then(|elements| elements.as_array()).map_or(0, Vec::len);
                observed.sizes.insert(text("name"), elements);
            }
            _ => {}
        }
    }
    observed
}
