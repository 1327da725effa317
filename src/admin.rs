//! The agents' admin sockets: HTTP over a Unix socket per node.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};
use tokio_stream::wrappers::LinesStream;
use tokio_util::io::StreamReader;

use crate::paths::ClusterPaths;

/// A node on this machine answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node's admin socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct AdminSocket {
    /// Name of the node.
    pub(crate) node: String,
    path: PathBuf,
}

/// The sockets of the cluster's nodes, or of one of them.
pub(crate) fn sockets(paths: &ClusterPaths, node: Option<&str>) -> anyhow::Result<Vec<AdminSocket>> {
    let mut found: Vec<_> = fs::read_dir(paths.nodes())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path().join("admin.sock"))))
        .filter(|(name, path)| path.exists() && node.is_none_or(|wanted| wanted == name))
        .map(|(node, path)| AdminSocket { node, path })
        .collect();
    found.sort();
    match (found.is_empty(), node) {
        (false, _) => Ok(found),
        (true, Some(node)) => {
            bail!(
                "the cluster {} has no node {node} running here; `fairlead status` lists its nodes",
                paths.name
            )
        }
        (true, None) => bail!(
            "no node of the cluster {} runs here (looked in {}); start it with `fairlead up`, or check --name and --run-dir",
            paths.name,
            paths.nodes().display()
        ),
    }
}

impl AdminSocket {
    /// Gets a JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = async { Ok::<_, anyhow::Error>(self.open(path).await?.collect().await?.to_bytes()) };
        let body = timeout(PATIENCE, body)
            .await
            .with_context(|| format!("{} does not answer on {}", self.node, self.path.display()))??;
        serde_json::from_slice(&body).with_context(|| {
            format!("{} answered {path} with something this version does not know", self.node)
        })
    }

    /// Somebody listens. A process that was killed leaves the file behind.
    pub(crate) fn is_alive(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.path).is_ok()
    }

    /// The process that answers.
    pub(crate) async fn pid(&self) -> Option<i32> {
        UnixStream::connect(&self.path).await.ok()?.peer_cred().ok()?.pid()
    }

    /// The lines of an answer that may have no end.
    pub(crate) async fn lines(
        self,
        path: String,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<String>>> {
        let body = self.open(&path).await?.into_data_stream();
        let node = self.node;
        let chunks = body.map(move |chunk| {
            chunk.map_err(|problem| std::io::Error::other(format!("{node} stopped answering: {problem}")))
        });
        let lines = LinesStream::new(BufReader::new(StreamReader::new(chunks)).lines());
        Ok(lines.map_err(anyhow::Error::from).try_filter(|line| std::future::ready(!line.trim().is_empty())))
    }

    async fn open(&self, path: &str) -> anyhow::Result<hyper::body::Incoming> {
        let unreachable =
            || format!("{} does not answer on {}; does its daemon run?", self.node, self.path.display());
        let stream = UnixStream::connect(&self.path).await.with_context(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.with_context(unreachable)?;
        // Ends when the answer has been read or dropped.
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await.with_context(unreachable)?;
        let status = response.status();
        if status != StatusCode::OK {
            let text = response.into_body().collect().await?.to_bytes();
            bail!("{} answered {path} with {status}: {}", self.node, String::from_utf8_lossy(&text).trim());
        }
        Ok(response.into_body())
    }
}

/// A runtime for commands that only ask.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// `name=value` pairs as a query, values escaped.
pub(crate) fn query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        text.push(separator);
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
        separator = '&';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::query;

    #[test]
    fn queries_are_escaped_and_absent_values_left_out() {
        let pairs = [("pod", Some("demo/a&b".to_owned())), ("verdict", None), ("last", Some("5".to_owned()))];
        assert_eq!(query("/flows", &pairs), "/flows?pod=demo%2Fa%26b&last=5");
        assert_eq!(query("/flows", &[]), "/flows");
    }
}
