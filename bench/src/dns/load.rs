//! Questions: dnsperf for many, a socket for one.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::servers::{Process, beside};
use crate::cluster::succeed;

/// Clients of dnsperf, and questions of all of them that wait at a time.
const CLIENTS: &str = "10";
const OUTSTANDING: &str = "400";
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a turn cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Processor time of the server per answer, in microseconds.
    pub us_per_answer: f64,
    /// Answers per second.
    pub answers_per_sec: f64,
    /// Answers in all.
    pub answers: u64,
    /// Questions without an answer.
    pub lost: u64,
}

/// One turn of one server.
pub(super) struct Load<'a> {
    pub(super) file: &'a Path,
    pub(super) seconds: u64,
    pub(super) server: &'a Process,
}

impl Load<'_> {
    pub(super) async fn run(self) -> Result<Cost> {
        let Self { file, seconds, server } = self;
        let mut command = beside("dnsperf")?;
        command.args(["-s", &server.address.ip().to_string(), "-p", &server.address.port().to_string()]);
        command
            .args(["-c", CLIENTS, "-T", "1", "-q", OUTSTANDING, "-l", &seconds.to_string(), "-d"])
            .arg(file);
        let before = server.cpu_secs()?;
        let text = succeed(&mut command).await?;
        let used = server.cpu_secs()? - before;
        let answers = number(&text, "Queries completed:")?;
        ensure!(answers > 0.0, "{} gave no answer: {text}", server.address);
        ensure!(text.contains("NOERROR"), "{} answered no question well: {text}", server.address);
        let good = text.lines().find(|line| line.contains("Response codes:")).unwrap_or_default();
        ensure!(good.contains("NOERROR") && good.contains("(100.00%)"), "not every answer was good: {good}");
        Ok(Cost {
            us_per_answer: used * 1e6 / answers,
            answers_per_sec: number(&text, "Queries per second:")?,
            answers: answers as u64,
            lost: number(&text, "Queries lost:")? as u64,
        })
    }
}

/// A line of dnsperf's report.
fn number(text: &str, key: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    value.with_context(|| format!("dnsperf says no {key:?}: {text}"))?.parse().context("not a number")
}

/// A file for dnsperf, in an order that is the same in every run and follows no pattern.
pub(super) fn write_questions(file: &Path, names: &[String]) -> Result<()> {
    let mut text = String::new();
    // A step that has no divisor in common with the count visits every name once.
    let step = (1..).map(|n| n * 7919 + 1).find(|step| gcd(*step, names.len()) == 1).unwrap_or(1);
    for index in 0..names.len() {
        writeln!(text, "{} A", names[index * step % names.len()])?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Asks for the IPv4 addresses of a name; says how many there are.
pub(super) fn ask(server: SocketAddr, name: &str) -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    ask_on(&socket, name)
}

/// The same on a connected socket.
pub(super) fn ask_on(socket: &UdpSocket, name: &str) -> Result<u16> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len())?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&message)?;
    let mut answer = [0; 512];
    let size = socket.recv(&mut answer)?;
    ensure!(size >= 12 && answer[..2] == message[..2], "not the answer");
    Ok(u16::from_be_bytes([answer[6], answer[7]]))
}
