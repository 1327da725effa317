//! Formatting, clippy, documentation, licences and the dependency edges of the layout.

use anyhow::Result;
use std::process::Command;

use crate::{build, paths, requirement::CARGO_DENY, setup, step};

/// Runs every check; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::LINT)?;
    step::quiet("check the formatting", build::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--locked", "--all-targets", "--", "--deny", "warnings"];
    step::quiet("run clippy", build::cargo().args(clippy))?;
    let mut doc = build::cargo();
    doc.args(["doc", "--locked", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings");
    step::quiet("build the documentation", &mut doc)?;
    // Advisories need a database that only a machine with access to it can fetch: `cargo deny check advisories`.
    let mut deny = Command::new(CARGO_DENY.binary());
    deny.current_dir(paths::root()).args(["--workspace", "check", "bans", "licenses", "sources"]);
    step::quiet("check licences and dependency edges", &mut deny)
}
