//! Listening sockets: inherited from systemd (or `fairlead up`) by name, or bound here.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use anyhow::Context as _;
use listenfd::ListenFd;

/// Sockets that were passed to this process (`sd_listen_fds(3)`), each with its name in `LISTEN_FDNAMES`.
#[derive(Debug)]
pub(crate) struct Inherited {
    sockets: Vec<(String, OwnedFd)>,
}

impl Inherited {
    /// Takes what was passed. Nothing passed is not an error; something that is neither UDP nor TCP is.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mut passed = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let tcp = passed.take_tcp_listener(index).map(|socket| socket.map(OwnedFd::from));
            let socket = match tcp {
                Err(_) => passed.take_udp_socket(index).map(|socket| socket.map(OwnedFd::from)),
                tcp => tcp,
            };
            let socket = socket.with_context(|| {
                format!(
                    "inherited socket {index} ({name:?}) cannot be used; pass UDP and listening TCP sockets"
                )
            })?;
            sockets.extend(socket.map(|socket| (name, socket)));
        }
        Ok(Self { sockets })
    }

    /// The TCP sockets named `name`.
    pub(crate) fn named(&mut self, name: &str) -> Vec<TcpListener> {
        let named = self.sockets.extract_if(.., |(own, _)| own == name);
        named.map(|(_, socket)| socket.into()).collect()
    }

    /// All of them.
    pub(crate) fn into_sockets(self) -> impl Iterator<Item = OwnedFd> {
        self.sockets.into_iter().map(|(_, socket)| socket)
    }
}

/// Binds every address; the error names the one that cannot be had and what to do.
pub(crate) fn bind(addresses: &[SocketAddr], flag: &str) -> anyhow::Result<Vec<TcpListener>> {
    addresses.iter().map(|address| bind_one(*address, flag)).collect()
}

fn bind_one(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|problem| {
        let remedy = match problem.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another process listens there; stop it or choose another address with {flag}")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("no interface of this machine has that address; choose another with {flag}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("ports below 1024 need root; choose another address with {flag}")
            }
            _ => format!("choose another address with {flag}"),
        };
        anyhow::Error::new(problem).context(format!("cannot listen on {address}: {remedy}"))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::bind;

    #[test]
    fn a_taken_port_is_named_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let message = bind(&[address], "--api-port").unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("--api-port"), "{message}");
    }
}
