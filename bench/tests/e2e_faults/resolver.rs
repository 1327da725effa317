//! A node's resolver is killed again and again while clients ask it. What they ask meanwhile waits in its sockets, which
//! the supervisor holds, until the next one reads it; and the next one knows at once what the last one knew.

use std::{
    fs::File,
    io,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fairlead_bench::cluster::Cluster;
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};

use crate::support::{eventually, pid_of, signal};

/// How often the resolver is killed.
const KILLS: usize = 4;
/// Clients that ask at the same time.
const CLIENTS: usize = 8;
/// Questions that one client has open at a time.
const OPEN: u16 = 8;
/// Look-ups between two kills, at least.
const LOOK_UPS: u64 = 2000;
/// How long a client waits for an answer, and how often it asks: what glibc does unless it is told otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;
/// The resolver of the first node.
const SERVER: &str = "172.29.0.11:53";
const NAME: &str = "kubernetes.default.svc.cluster.local";

/// What the clients saw.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// Answers that were not the service's address.
    wrong: AtomicU64,
    /// Questions that nothing came back for in time: the client asks once more.
    repeated: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    let seen = Arc::new(Seen::default());
    let namespace = Path::new("/run/netns").join(cluster.node_netns(1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (seen, namespace) = (Arc::clone(&seen), namespace.clone());
            thread::spawn(move || ask_until_told(&namespace, &seen))
        })
        .collect();
    let outcome = kill_again_and_again(cluster, &seen).await;
    seen.stop.store(true, Relaxed);
    for client in clients {
        client.join().expect("a client does not panic")?;
    }
    outcome?;
    let [answered, wrong, repeated, lost] =
        [&seen.answered, &seen.wrong, &seen.repeated, &seen.lost].map(|count| count.load(Relaxed));
    println!(
        "{answered} look-ups were answered, {repeated} questions of them asked twice, {lost} lost, {wrong} wrong"
    );
    ensure!(lost == 0 && wrong == 0, "{lost} look-ups were lost and {wrong} answered wrongly");
    // What was being answered at the moment of a kill is gone, a client's questions at most; what waited is not.
    let at_work = u64::from(OPEN) * KILLS as u64;
    ensure!(
        repeated <= at_work,
        "{repeated} questions were asked twice: they did not wait for the next resolver"
    );
    Ok(())
}

async fn kill_again_and_again(cluster: &Cluster, seen: &Seen) -> Result<()> {
    for _ in 0..KILLS {
        let enough = seen.answered.load(Relaxed) + LOOK_UPS;
        eventually("the clients make progress", async || {
            Ok((seen.answered.load(Relaxed) >= enough).then_some(()))
        })
        .await?;
        let killed = pid_of(cluster, "node-1 dns").await?;
        signal(killed, Signal::SIGKILL)?;
        eventually("the resolver is started again", async || {
            Ok(pid_of(cluster, "node-1 dns").await.ok().filter(|pid| *pid != killed))
        })
        .await?;
    }
    let enough = seen.answered.load(Relaxed) + LOOK_UPS;
    eventually("the last one answers", async || Ok((seen.answered.load(Relaxed) >= enough).then_some(())))
        .await
}

/// Asks from inside a node until it is told to stop. This thread stays in that namespace and ends with it.
fn ask_until_told(namespace: &Path, seen: &Seen) -> Result<()> {
    let file = File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the node's namespace")?;
    let server: SocketAddr = SERVER.parse()?;
    let mut id = 0_u16;
    while !seen.stop.load(Relaxed) {
        // A client of its own each time, so that all of the resolver's sockets are met.
        let socket = UdpSocket::bind("172.29.0.11:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut open: Vec<u16> = (0..OPEN).map(|offset| id.wrapping_add(offset)).collect();
        id = id.wrapping_add(OPEN);
        for attempt in 1..=ATTEMPTS {
            for id in &open {
                socket.send(&question(*id))?;
            }
            collect(&socket, &mut open, seen)?;
            if open.is_empty() {
                break;
            }
            let count = if attempt < ATTEMPTS { &seen.repeated } else { &seen.lost };
            count.fetch_add(open.len() as u64, Relaxed);
        }
    }
    Ok(())
}

/// Takes answers until all have come, or none comes any more.
fn collect(socket: &UdpSocket, open: &mut Vec<u16>, seen: &Seen) -> Result<()> {
    let mut answer = [0; 512];
    while !open.is_empty() {
        let size = match socket.recv(&mut answer) {
            Ok(size) => size,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error).context("a client was refused"),
        };
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        let Some(place) = open.iter().position(|own| *own == id) else { continue };
        open.swap_remove(place);
        // NOERROR, one answer, and it is 10.96.0.1.
        let good = answer[3] & 0x0f == 0 && answer[7] == 1 && answer[..size].ends_with(&[10, 96, 0, 1]);
        let count = if good { &seen.answered } else { &seen.wrong };
        count.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// A question for the address of a service that every cluster has.
fn question(id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}
