//! `fairlead`: the one binary. A file per subcommand, wiring only; start reading at [`cli`].

use std::process::ExitCode;

mod admin;
mod allocator;
mod bpf;
mod cli;
mod completions;
mod container_log;
mod daemon;
mod dns;
mod down;
mod error;
mod explain;
mod flows;
mod identity;
mod inspect;
mod kubeconfig;
mod listen;
mod logging;
mod node;
mod output;
mod paths;
mod proxy;
mod server;
mod service;
mod status;
mod store;
mod system;
mod top;
mod up;

fn main() -> ExitCode {
    let cli = cli::parse();
    let log = logging::start(cli.log_level.as_deref(), cli.command.default_log_level());
    let outcome = cli.command.run();
    drop(log);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => error::report(&failure),
    }
}
