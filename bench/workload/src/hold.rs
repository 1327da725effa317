//! One connection, held open, with a round trip every few milliseconds; a break is reported and a new one opened. When the
//! server announces its end, the move to another connection is counted, not reported as a break.

use std::{
    io::BufReader,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    args::Args,
    http::{self, Url},
    load::now_ms,
    stop,
};

/// Pause between two round trips.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the sum is printed.
const REPORT: Duration = Duration::from_secs(1);

/// Holds the connection until it is told to stop, or the time is over.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let url = Url::parse(&format!("http://{}/", args.target("HOST:PORT")?))?;
    let end = Instant::now() + Duration::from_secs(args.option("--duration", 3600)?);
    let stop = stop::requested();
    let (mut round_trips, mut breaks, mut moves) = (0_u64, 0_u64, 0_u64);
    let mut reported = Instant::now();
    let mut held = None;
    while !stop.is_set() && Instant::now() < end {
        let outcome = match held.take() {
            Some(stream) => Ok(stream),
            None => open(&url),
        };
        match outcome.and_then(|mut stream| url.get_again(&mut stream).map(|answer| (stream, answer.close))) {
            Ok((stream, close)) => {
                round_trips += 1;
                // A server that drains says so before it ends; that breaks nothing.
                moves += u64::from(close);
                held = (!close).then_some(stream);
            }
            Err(error) => {
                breaks += 1;
                println!("{}", json!({ "at_ms": now_ms(), "break": error.to_string() }));
            }
        }
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            println!(
                "{}",
                json!({ "at_ms": now_ms(), "round_trips": round_trips, "breaks": breaks, "moves": moves })
            );
        }
        thread::sleep(PAUSE);
    }
    println!(
        "{}",
        json!({ "at_ms": now_ms(), "round_trips": round_trips, "breaks": breaks, "moves": moves, "final": true })
    );
    Ok(())
}

fn open(url: &Url) -> std::io::Result<BufReader<std::net::TcpStream>> {
    let addresses = url.resolve()?;
    let first = addresses.first().copied().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    Ok(BufReader::new(http::connect(first)?))
}
