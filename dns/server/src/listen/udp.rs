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
    BATCH, Batch,
    batch::{Origin, watch},
    is_transient,
    pace::{NAP, Pace},
    send::send,
    waiting::{Ticket, Waiting},
};
use crate::{
    codec::{Key, glance, refuse},
    handler::{Again, Handler, Step},
    heartbeat::BEAT,
    hot::Memo,
    metrics::{Client, Ledger, Line, Transport},
};

/// Batches read before answers that were waited for get their turn.
const ROUNDS_MAX: usize = 4;
/// Questions that may wait for somebody else, per worker.
const WAITING_MAX: usize = 4096;

/// Room for a question, and for its answer in its place: what is longer is cut, and then malformed (CoreDNS reads 512
/// bytes). An odd number of cache lines, because buffers a power of two apart drive each other out of the cache.
const QUESTION_MAX: usize = 21 * 64;

/// A question that waits.
struct Parked {
    abort: AbortHandle,
    origin: Origin,
    /// What its client is told when it has to give way.
    refusal: Vec<u8>,
}

/// An answer to a datagram of this round.
#[derive(Clone, Copy)]
enum Answer {
    /// In place of the question, so long.
    InPlace(usize, usize),
    /// In a buffer.
    Written(usize, usize),
}

/// An answer that was waited for; nothing when the question had to give way.
type Later = BoxFuture<'static, Option<(Ticket, Vec<u8>)>>;

struct Worker {
    address: SocketAddr,
    handler: Arc<Handler>,
    batch: Batch<QUESTION_MAX>,
    memo: Memo<Line>,
    pace: Pace,
    /// Answers out of the memo, until they are sent.
    ledger: Ledger,
    key: Key,
    /// Where the answers of this round are.
    answers: Vec<Answer>,
    /// Those that did not come out of the memo; the buffers are used again.
    written: Vec<Vec<u8>>,
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
        pace: Pace::new(Instant::now()),
        ledger: Ledger::default(),
        answers: Vec::with_capacity(BATCH),
        written: vec![Vec::new(); BATCH],
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
                    let received = Instant::now();
                    self.answer(ready.get_inner(), count, received);
                    if self.pace.note(received, count) {
                        std::thread::sleep(NAP);
                    }
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
    fn answer(&mut self, socket: &UdpSocket, count: usize, received: Instant) {
        if self.memo.follow(self.handler.routes_id()) {
            self.ledger.close();
        }
        self.answers.clear();
        for index in 0..count {
            self.answer_one(socket, index, received);
        }
        if self.answers.is_empty() {
            return;
        }
        let messages = self.answers.iter().map(|answer| match *answer {
            Answer::InPlace(index, len) => (Some(self.batch.origin(index)), self.batch.answer(index, len)),
            Answer::Written(index, buffer) => (Some(self.batch.origin(index)), &self.written[buffer][..]),
        });
        let sent = send(socket.as_fd(), messages);
        (sent..self.answers.len()).for_each(|_| self.handler.drop_packet());
        self.ledger.settle(Transport::Udp, received.elapsed());
    }

    fn answer_one(&mut self, socket: &UdpSocket, index: usize, received: Instant) {
        let packet = self.batch.packet(index);
        let origin = self.batch.origin(index);
        let Some(peer) = origin.peer() else { return self.handler.drop_packet() };
        let asked = packet.len();
        let glanced = glance(packet, &mut self.key);
        if let Some(glance) = &glanced
            && let Some((len, line)) = self.memo.answer(&self.key, glance, received, self.batch.buffer(index))
        {
            self.ledger.note(line, peer.ip(), asked, len);
            self.answers.push(Answer::InPlace(index, len));
            return;
        }
        let local =
            self.batch.origin(index).local().map_or(self.address, |ip| (ip, self.address.port()).into());
        let client = Client { peer, local, transport: Transport::Udp };
        let buffer = self.answers.len();
        let out = &mut self.written[buffer];
        match self.handler.start(self.batch.packet(index), client, out) {
            Step::Ignore => {}
            Step::Reply(again) => {
                if let (Some(glance), Some(Again { lasting, rotate, tally })) = (&glanced, again) {
                    let line = self.ledger.line(tally);
                    self.memo.learn((&self.key, glance), out, rotate, (&lasting, line));
                }
                self.answers.push(Answer::Written(index, buffer));
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
