//! `health [ADDRESS] [{ lameduck DURATION }]`: `/health` says OK for as long as the process lives.
//!
//! It asks itself every second; how long that takes is a metric of how busy the process is.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Plugins, Setup, once};
use crate::{
    corefile::{CorefileError, Directive, Words, unknown},
    metrics::{Counter, Family, Histogram},
};

const DURATION: Family = Family {
    name: "coredns_health_request_duration_seconds",
    help: "Histogram of the time (in seconds) each request took.",
};
const FAILURES: Family = Family {
    name: "coredns_health_request_failures_total",
    help: "The number of times the health check failed.",
};
/// How often it asks itself, and how long it waits.
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let at = address(directive.words(), ([0, 0, 0, 0], 8080).into())?;
    for (option, mut words) in directive.lines() {
        match option {
            "lameduck" => setup.parts.lameduck = words.duration()?,
            _ => return Err(unknown(&words, option)),
        }
    }
    if let Some(at) = setup.world.endpoint(setup.world.config.health, at) {
        setup.parts.endpoints.entry(at).or_default().health = true;
        let (durations, failures) =
            (setup.world.registry.durations(&DURATION, &[]), setup.world.registry.counter(&FAILURES, &[]));
        if at.port() != 0 {
            setup.spawn(probe(at, durations, failures).boxed());
        }
    }
    Ok(Vec::new())
}

/// The address argument of an HTTP endpoint: `:8080`, `localhost:8080` or `127.0.0.1:8080`.
pub(super) fn address(mut words: Words<'_>, default: SocketAddr) -> Result<SocketAddr, CorefileError> {
    let Some(word) = words.next() else { return Ok(default) };
    let text =
        if word.starts_with(':') { format!("0.0.0.0{word}") } else { word.replace("localhost", "127.0.0.1") };
    let address = text.parse().map_err(|_| words.fault(format!("{word:?} is not ADDRESS:PORT")))?;
    words.end()?;
    Ok(address)
}

async fn probe(at: SocketAddr, durations: Arc<Histogram>, failures: Arc<Counter>) {
    let at = if at.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], at.port())) } else { at };
    loop {
        sleep(EVERY).await;
        let began = Instant::now();
        match timeout(PATIENCE, ask(at)).await {
            Ok(Ok(())) => durations.observe_duration(began.elapsed()),
            Ok(Err(_)) | Err(_) => failures.add(),
        }
    }
}

async fn ask(at: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(())
}
