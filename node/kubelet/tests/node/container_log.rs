//! The log writer as a program of its own, for the tests: `fairlead` has it as a hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(2).collect();
    match fairlead_kubelet::run_log_driver(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
