//! One question to a container: a command, an HTTP request, a TCP connection, or a pause.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

use crate::{containerd::Containerd, logs::reader::tail_text};

/// How much of a failing command's output is told.
const OUTPUT_BYTES_MAX: usize = 1024;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Exec(Vec<String>),
    Http(HTTPGetAction),
    Tcp {
        host: Option<String>,
        port: IntOrString,
    },
    Sleep(Duration),
    /// A kind of handler that is not carried out; the text says which ones are.
    Unsupported(&'static str),
}

impl Action {
    pub(crate) fn of_probe(probe: &Probe) -> Self {
        if let Some(exec) = &probe.exec {
            Self::Exec(exec.command.clone().unwrap_or_default())
        } else if let Some(get) = &probe.http_get {
            Self::Http(get.clone())
        } else if let Some(tcp) = &probe.tcp_socket {
            Self::Tcp { host: tcp.host.clone(), port: tcp.port.clone() }
        } else {
            Self::Unsupported("use an exec, httpGet or tcpSocket probe")
        }
    }

    pub(crate) fn of_hook(hook: &LifecycleHandler) -> Self {
        if let Some(exec) = &hook.exec {
            Self::Exec(exec.command.clone().unwrap_or_default())
        } else if let Some(get) = &hook.http_get {
            Self::Http(get.clone())
        } else if let Some(sleep) = &hook.sleep {
            Self::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)))
        } else if let Some(tcp) = &hook.tcp_socket {
            Self::Tcp { host: tcp.host.clone(), port: tcp.port.clone() }
        } else {
            Self::Unsupported("use an exec, httpGet or sleep hook")
        }
    }
}

/// Asks one container. Connections come from the network namespace of this process.
#[derive(Debug)]
pub(crate) struct Prober {
    pub(crate) containerd: Containerd,
    pub(crate) container_id: String,
    /// The container's OCI process, the pattern of commands.
    pub(crate) process: serde_json::Value,
    pub(crate) address: Option<IpAddr>,
    /// Named ports are looked up here.
    pub(crate) container: Container,
    /// Outputs of commands, for a moment.
    pub(crate) run_dir: PathBuf,
}

impl Prober {
    /// Asks once. The error is a sentence for an Event.
    pub(crate) async fn check(&self, action: &Action, timeout: Duration) -> Result<(), String> {
        match action {
            Action::Exec(command) => self.exec(command, timeout).await,
            Action::Sleep(pause) => {
                tokio::time::sleep(*pause).await;
                Ok(())
            }
            Action::Unsupported(advice) => Err((*advice).to_owned()),
            Action::Http(get) => within(timeout, self.http(get)).await,
            Action::Tcp { host, port } => {
                within(timeout, async { self.connect(host.as_deref(), port).await.map(|_| ()) }).await
            }
        }
    }

    async fn connect(&self, host: Option<&str>, port: &IntOrString) -> Result<TcpStream, String> {
        let port = self.port(port)?;
        let stream = match (host.filter(|host| !host.is_empty()), self.address) {
            (Some(host), _) => TcpStream::connect((host, port)).await,
            (None, Some(address)) => TcpStream::connect((address, port)).await,
            (None, None) => return Err("the pod has no address".to_owned()),
        };
        stream.map_err(|error| format!("connect to port {port}: {error}"))
    }

    async fn http(&self, get: &HTTPGetAction) -> Result<(), String> {
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err("only scheme HTTP is supported".to_owned());
        }
        let stream = self.connect(get.host.as_deref(), &get.port).await?;
        let peer = stream.peer_addr().map_err(|error| error.to_string())?;
        let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let mut request = Request::get(path).header("user-agent", "kube-probe/1.36").header("accept", "*/*");
        let headers = get.http_headers.iter().flatten();
        if !headers.clone().any(|header| header.name.eq_ignore_ascii_case("host")) {
            request = request.header("host", peer.to_string());
        }
        for header in headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("Get http://{peer}{path}: {error}"))?;
        let mut answer = std::pin::pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // A server that closes after its answer: the answer is there.
            _closed = connection => answer.await,
        };
        let status = answer.map_err(|error| format!("Get http://{peer}{path}: {error}"))?.status();
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Result<(), String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let exec_id = format!("exec-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let output = self.run_dir.join(format!("{}-{exec_id}", self.container_id));
        let mut process = self.process.clone();
        process["args"] = serde_json::json!(command);
        let uri = format!("file://{}", output.display());
        let run = async {
            self.containerd.exec(&self.container_id, &exec_id, &process, &uri).await?;
            self.containerd.wait(&self.container_id, &exec_id).await
        };
        let result = tokio::time::timeout(timeout, run).await;
        let deleted = self.containerd.delete_exec(&self.container_id, &exec_id).await;
        let text = tail_text(&output, OUTPUT_BYTES_MAX);
        // Without output there is no file.
        let _absent = std::fs::remove_file(&output);
        match result {
            Err(_) => Err(format!("command {command:?} timed out after {} s", timeout.as_secs())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(Some(exit))) if exit.code == 0 => deleted.map_err(|error| error.to_string()),
            Ok(Ok(Some(exit))) => {
                Err(format!("command {command:?} exited with {}: {}", exit.code, text.trim()))
            }
            Ok(Ok(None)) => Err("the container has ended".to_owned()),
        }
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let ports = self.container.ports.iter().flatten();
                let named =
                    ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
                named.chain(name.parse()).next()
            }
        };
        number
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| format!("the container has no port {port:?}"))
    }
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}
