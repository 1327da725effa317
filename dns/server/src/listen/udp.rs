//! One worker: a thread, a socket, and everything that is needed to answer on it, shared with nobody.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::Instant,
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use tokio::{io::unix::AsyncFdReadyGuard, runtime::Builder};
use tokio_util::sync::CancellationToken;

use super::{
    BATCH, Batch, MESSAGE_MAX,
    batch::{Origin, send, watch},
    is_transient,
    waiting::{Ticket, Waiting},
};
use crate::{
    codec::{Key, glance, refuse},
    handler::{Again, Handler, Step, Tally},
    heartbeat::BEAT,
    hot::Memo,
    metrics::{Client, Transport},
};

/// Batches read before answers that were waited for get their turn.
const ROUNDS_MAX: usize = 4;
/// Questions that may wait for somebody else, per worker.
const WAITING_MAX: usize = 4096;

/// A question that waits.
struct Parked {
    abort: AbortHandle,
    origin: Origin,
    /// What its client is told when it has to give way.
    refusal: Vec<u8>,
}

/// An answer that was waited for; nothing when the question had to give way.
type Later = BoxFuture<'static, Option<(Ticket, Vec<u8>)>>;

struct Worker {
    address: SocketAddr,
    handler: Arc<Handler>,
    batch: Batch,
    memo: Memo<Arc<Tally>>,
    key: Key,
    /// Answers of this round; their buffers are used again.
    answers: Vec<Vec<u8>>,
    /// Which datagram each of them answers.
    sources: Vec<usize>,
    parked: Waiting<Parked>,
    later: FuturesUnordered<Later>,
}

/// Answers on a socket until shutdown.
pub(super) fn run(
    socket: UdpSocket,
    workers: usize,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let worker = Worker {
        address: socket.local_addr()?,
        handler,
        batch: Batch::new(),
        memo: Memo::new(workers),
        key: Key::new(),
        answers: (0..BATCH).map(|_| Vec::with_capacity(MESSAGE_MAX)).collect(),
        sources: Vec::with_capacity(BATCH),
        parked: Waiting::new(WAITING_MAX),
        later: FuturesUnordered::new(),
    };
    Builder::new_current_thread().enable_all().build()?.block_on(worker.serve(socket, shutdown))
}

impl Worker {
    async fn serve(mut self, socket: UdpSocket, shutdown: CancellationToken) -> io::Result<()> {
        let socket = watch(socket)?;
        let mut cancelled = std::pin::pin!(shutdown.cancelled());
        let (turning, mut beat) = (self.handler.pulse.join(), tokio::time::interval(BEAT));
        loop {
            tokio::select! {
                ready = socket.readable() => self.read(ready?)?,
                Some(done) = self.later.next() => self.finish(socket.get_ref(), done),
                _ = beat.tick(), if turning.watched => turning.turn(),
                () = &mut cancelled => return Ok(()),
            }
        }
    }

    /// Reads and answers what has come.
    fn read(&mut self, mut ready: AsyncFdReadyGuard<'_, UdpSocket>) -> io::Result<()> {
        for _ in 0..ROUNDS_MAX {
            match ready.try_io(|socket| self.batch.receive(socket.get_ref().as_fd())) {
                Ok(Ok(count)) => {
                    self.answer(ready.get_inner(), count);
                    if count < BATCH {
                        ready.clear_ready();
                        return Ok(());
                    }
                }
                Ok(Err(error)) if is_transient(&error) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Answers a batch: what can be answered at once leaves in one system call, the rest waits.
    fn answer(&mut self, socket: &UdpSocket, count: usize) {
        let received = Instant::now();
        self.memo.follow(self.handler.routes_id());
        self.sources.clear();
        for index in 0..count {
            self.answer_one(socket, index, received);
        }
        if self.sources.is_empty() {
            return;
        }
        let messages = self.sources.iter().zip(&self.answers);
        let messages = messages.map(|(index, bytes)| (Some(self.batch.origin(*index)), &bytes[..]));
        let sent = send(socket.as_fd(), messages);
        (sent..self.sources.len()).for_each(|_| self.handler.drop_packet());
    }

    fn answer_one(&mut self, socket: &UdpSocket, index: usize, received: Instant) {
        let packet = self.batch.packet(index);
        let origin = self.batch.origin(index);
        let Some(peer) = origin.peer() else { return self.handler.drop_packet() };
        let local = origin.local().map_or(self.address, |ip| (ip, self.address.port()).into());
        let client = Client { peer, local, transport: Transport::Udp };
        let out = &mut self.answers[self.sources.len()];
        let glanced = glance(packet, &mut self.key);
        if let Some(glance) = &glanced
            && let Some(tally) = self.memo.answer(&self.key, glance, (packet, received), out)
        {
            tally.repeat(client, packet.len(), out.len(), received.elapsed());
            self.sources.push(index);
            return;
        }
        match self.handler.start(packet, client, out) {
            Step::Ignore => {}
            Step::Reply(again) => {
                if let (Some(glance), Some(Again { lasting, rotate, tally })) = (&glanced, again) {
                    self.memo.learn((&self.key, glance), out, rotate, (lasting, tally));
                }
                self.sources.push(index);
            }
            Step::Wait(answer) => self.park(socket, index, client, answer),
        }
    }

    /// Puts a question aside; when there are too many of them, another one is refused.
    fn park(
        &mut self,
        socket: &UdpSocket,
        index: usize,
        client: Client,
        answer: BoxFuture<'static, Vec<Vec<u8>>>,
    ) {
        let (abort, registration) = AbortHandle::new_pair();
        let mut refusal = Vec::new();
        refuse(self.batch.packet(index), &mut refusal);
        let parked = Parked { abort, origin: *self.batch.origin(index), refusal };
        let (ticket, shed) = self.parked.admit(client.peer.ip(), parked);
        let answer = Abortable::new(answer, registration);
        self.later.push(
            async move {
                let messages = answer.await.ok()?;
                // Over UDP there is one answer or none.
                Some((ticket, messages.into_iter().next().unwrap_or_default()))
            }
            .boxed(),
        );
        if let Some(shed) = shed {
            shed.abort.abort();
            self.handler.shed();
            send(socket.as_fd(), std::iter::once((Some(&shed.origin), &shed.refusal[..])));
        }
    }

    /// Sends an answer that was waited for, and those that have come with it.
    fn finish(&mut self, socket: &UdpSocket, first: Option<(Ticket, Vec<u8>)>) {
        let mut ready = Vec::with_capacity(BATCH);
        let mut next = Some(first);
        while let Some(done) = next {
            if let Some((ticket, bytes)) = done
                && let Some(parked) = self.parked.done(ticket)
                && !bytes.is_empty()
            {
                ready.push((parked.origin, bytes));
            }
            next = if ready.len() < BATCH { self.later.next().now_or_never().flatten() } else { None };
        }
        let sent = send(socket.as_fd(), ready.iter().map(|(origin, bytes)| (Some(origin), &bytes[..])));
        (sent..ready.len()).for_each(|_| self.handler.drop_packet());
    }
}
