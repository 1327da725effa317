//! `fairlead completions`: a shell's completion script.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;

const EXAMPLES: &str = "\
Examples:
  source <(fairlead completions bash)
  fairlead completions zsh > ~/.zfunc/_fairlead
  fairlead completions fish > ~/.config/fish/completions/fairlead.fish";

/// Arguments of `fairlead completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fairlead", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
