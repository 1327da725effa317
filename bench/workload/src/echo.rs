//! The echo server: says who answered. After SIGTERM it serves on until its endpoint has left every node's map.

use std::{
    env,
    io::{BufReader, ErrorKind},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    args::Args,
    http,
    stop::{self, Stop},
};

/// How long open connections may take to finish after the drain.
const LINGER: Duration = Duration::from_secs(1);
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);

struct Server {
    pod: String,
    node: String,
    ready_at: Instant,
    stop: Stop,
    open: AtomicU32,
}

/// Serves until it is told to stop and has drained.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let port: u16 = args.option("--port", 8080)?;
    let drain = Duration::from_secs(args.option("--drain-secs", 5)?);
    let delay = Duration::from_millis(args.option("--delay-ready-ms", 0)?);
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let listener = listener.map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    let stop = stop::requested();
    let hostname = || std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let server = Arc::new(Server {
        pod: env::var("POD_NAME").unwrap_or_else(|_| hostname()),
        node: env::var("NODE_NAME").unwrap_or_default(),
        ready_at: Instant::now() + delay,
        stop: stop.clone(),
        open: AtomicU32::new(0),
    });
    println!("{} serves on {}", server.pod, listener.local_addr().map_err(|error| error.to_string())?);
    let acceptor = Arc::clone(&server);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = Arc::clone(&acceptor);
            thread::spawn(move || server.serve(stream));
        }
    });
    stop.wait();
    println!("{} drains for {} s", server.pod, drain.as_secs());
    thread::sleep(drain);
    let end = Instant::now() + LINGER;
    while server.open.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Server {
    fn serve(&self, stream: TcpStream) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let outcome = self.answer(stream);
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = outcome
            && !matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::WouldBlock
            )
        {
            eprintln!("a connection ended with an error: {error}");
        }
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE))?;
        let peer = stream.peer_addr()?.to_string();
        let mut reader = BufReader::new(stream);
        while let Some(head) = http::read_head(&mut reader)? {
            http::read_body(&mut reader, &head)?;
            let path = head.start.split(' ').nth(1).unwrap_or("/");
            // Whoever holds a connection is asked for another one, which leads to a server that stays.
            let draining = self.stop.is_set();
            let close = head.close || draining;
            if path == "/healthz" && Instant::now() < self.ready_at {
                http::respond(reader.get_mut(), "503 Service Unavailable", "{}", close)?;
            } else {
                let body = json!({ "pod": self.pod, "node": self.node, "peer": peer, "path": path, "draining": draining });
                http::respond(reader.get_mut(), "200 OK", &body.to_string(), close)?;
            }
            if close {
                break;
            }
        }
        Ok(())
    }
}
