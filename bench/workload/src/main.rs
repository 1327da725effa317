//! What demo and test pods run: an echo server, and clients that report what they see as lines of JSON.
//!
//! It is one static binary, so that an image needs nothing else. Usage:
//!
//! ```text
//! fairlead-workload echo [--port 8080] [--delay-ready-ms 0] [--drain-secs 5]
//! fairlead-workload client resolve NAME...
//! fairlead-workload client look-ups NAME... [--count 1 | --until NAME] [--concurrency 1]
//! fairlead-workload client requests URL [--count 1] [--concurrency 1]
//! fairlead-workload client load URL [--duration SECS] [--concurrency 2] [--pause-ms 2]
//! fairlead-workload client hold HOST:PORT [--duration SECS]
//! fairlead-workload sleep
//! ```

mod args;
mod client;
mod echo;
mod hold;
mod http;
mod load;
mod look_ups;
mod stop;

use std::process::ExitCode;

use crate::args::Args;

fn main() -> ExitCode {
    match run(Args::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> Result<(), String> {
    match (args.word().as_deref(), args.peek()) {
        (Some("echo"), _) => echo::run(&args),
        (Some("sleep"), _) => {
            stop::requested().wait();
            Ok(())
        }
        (Some("client"), Some(_)) => match args.word().as_deref() {
            Some("resolve") => client::resolve(&args.words()),
            Some("look-ups") => look_ups::run(&args),
            Some("requests") => client::requests(&args),
            Some("load") => load::run(&args),
            Some("hold") => hold::run(&args),
            other => Err(format!("there is no client {other:?}: resolve, look-ups, requests, load or hold")),
        },
        (other, _) => Err(format!("there is no workload {other:?}: echo, client or sleep")),
    }
}
