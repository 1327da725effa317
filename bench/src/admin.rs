//! The administration endpoint of an agent, as one who asks it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use fairlead_agent::Applied;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long an answer is waited for before it is looked whether to go on.
const LOOK: Duration = Duration::from_secs(1);
/// Before somebody who does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the endpoint is.
#[derive(Clone, Debug)]
pub struct Admin(PathBuf);

impl Admin {
    /// At a socket, which need not be there yet.
    pub fn new(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// How the agent is, as [`fairlead_agent::Status`] in JSON. It looks at all its programs and counters for that.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value> {
        self.get("/status", None)
    }

    /// Waits until the update with this number is applied, or a later one, for as long as `go_on` has nothing against it. The
    /// agent has no more to do than to answer.
    ///
    /// # Errors
    /// Those of `go_on`.
    pub fn until_applied(&self, sequence: u64, go_on: impl Fn() -> Result<()>) -> Result<Applied> {
        let path = format!("/applied?sequence={sequence}");
        loop {
            go_on()?;
            match self.get(&path, Some(LOOK)) {
                Ok(applied) => return Ok(applied),
                Err(_not_yet) => thread::sleep(PAUSE),
            }
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str, patience: Option<Duration>) -> Result<T> {
        let mut stream = UnixStream::connect(&self.0).context("the agent's socket does not answer")?;
        stream.set_read_timeout(patience)?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the agent answers no HTTP")?;
        serde_json::from_str(body).with_context(|| format!("the agent's answer to {path} is no JSON: {body}"))
    }
}
