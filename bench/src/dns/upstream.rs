//! An upstream server that knows every name: one address, kept for an hour.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

/// Its queue in the kernel: all questions of a burst, so that what is measured is answers and not losses.
const QUEUE_BYTES: usize = 8 << 20;
/// How often it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// The server, on a thread of its own; it ends with this value.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    pub(super) fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES).context("the upstream's queue needs root")?;
        socket.set_read_timeout(Some(LOOK))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Relaxed) {
                let Ok((size, peer)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..size]) {
                    // A full queue is a lost answer, which the other side asks for again.
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Ok(Self { address, stop })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// The question and one address: 192.0.2.1, with a TTL of an hour.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    end += 5;
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 1];
    let mut answer = [question.get(..end)?, &record].concat();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    Some(answer)
}
