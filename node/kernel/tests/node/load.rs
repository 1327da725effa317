//! Clients that ask without a pause.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use fairlead_testkit::{
    echo::{ask, connect},
    eventually,
};

use crate::{
    cluster::{VIP4, VIP6},
    node::Pod,
};

/// Answers for each client that are waited for.
const BETWEEN: usize = 3;

/// What the clients connect to.
pub(crate) fn vips() -> [SocketAddr; 2] {
    [VIP4, VIP6].map(|vip| SocketAddr::new(vip, 80))
}

/// Clients that ask until they are dropped; every question must be answered.
pub(crate) struct Load<'a> {
    stop: AtomicBool,
    made: AtomicUsize,
    /// Each question goes over the client's one connection.
    on_one_connection: bool,
    /// What a client looks at before a question, and what it says afterwards of that and of who has answered.
    before: &'a (dyn Fn() -> usize + Sync),
    after: &'a (dyn Fn(usize, &str) + Sync),
}

impl Default for Load<'_> {
    fn default() -> Self {
        Self::watched(&|| 0, &|_, _| {})
    }
}

impl<'a> Load<'a> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Clients that connect once and ask without a pause from then on.
    pub(crate) fn on_one_connection() -> Self {
        Self { on_one_connection: true, ..Self::default() }
    }

    pub(crate) fn watched(
        before: &'a (dyn Fn() -> usize + Sync),
        after: &'a (dyn Fn(usize, &str) + Sync),
    ) -> Self {
        Self {
            stop: AtomicBool::new(false),
            made: AtomicUsize::new(0),
            on_one_connection: false,
            before,
            after,
        }
    }

    /// How many answers there were.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Runs `act` while clients ask.
    pub(crate) fn around(&self, client: &Pod, act: impl FnOnce()) {
        thread::scope(|scope| {
            for vip in [vips()[0], vips()[1], vips()[0]] {
                scope.spawn(move || client.run(|| self.ask_at(vip)));
            }
            // The clients end also when something fails here.
            let ended = StopOnDrop(&self.stop);
            act();
            drop(ended);
        });
    }

    fn ask_at(&self, vip: SocketAddr) {
        let mut kept = None;
        while !self.stop.load(Ordering::Relaxed) {
            let seen = (self.before)();
            let stream = kept.take().map_or_else(|| connect(vip), Ok);
            let asked = stream.and_then(|mut stream| Ok((ask(&mut stream)?, stream)));
            let (answer, stream) = asked.unwrap_or_else(|error| panic!("asking {vip} failed: {error}"));
            kept = self.on_one_connection.then_some(stream);
            (self.after)(seen, &answer);
            self.made.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for some more answers.
    pub(crate) fn some_more(&self) {
        let than = self.made.load(Ordering::Relaxed) + 3 * BETWEEN;
        eventually("traffic", || (self.made.load(Ordering::Relaxed) >= than).then_some(()));
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
