//! Clients that ask without a pause while something changes step by step.

use std::{
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use fairlead_testkit::{eventually, netns::run_in};

/// Somebody who asks.
pub(crate) trait Client: Sync {
    /// Says who may answer whom.
    type Step: Send;

    /// For messages.
    fn what(&self) -> String;

    /// Where it asks from.
    fn netns(&self) -> &Path;

    /// Who answers.
    fn ask(&self) -> io::Result<String>;

    /// Who may; an error is right when it is nobody.
    fn may_answer(&self, step: &Self::Step) -> Vec<&'static str>;

    /// Whether it is the error that a client gets to whom nobody answers.
    fn is_refused(&self, _error: &io::Error) -> bool {
        true
    }
}

/// Clients and what they go by.
pub(crate) struct Load<C: Client> {
    clients: Vec<C>,
    /// Step by step.
    history: Mutex<Vec<C::Step>>,
    /// How many of those after the first are in the kernel.
    committed: AtomicUsize,
    /// How often each client was answered as it should be.
    answered: Vec<AtomicUsize>,
    stop: AtomicBool,
}

impl<C: Client> Load<C> {
    pub(crate) fn new(clients: Vec<C>, first: C::Step) -> Self {
        Self {
            answered: clients.iter().map(|_| AtomicUsize::new(0)).collect(),
            clients,
            history: Mutex::new(vec![first]),
            committed: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Lets the clients ask while `act` runs.
    pub(crate) fn while_asking(&self, act: impl FnOnce()) {
        thread::scope(|scope| {
            for number in 0..self.clients.len() {
                scope.spawn(move || run_in(self.clients[number].netns(), || self.ask(number)));
            }
            // The clients end also when something fails here.
            let _stop = StopOnDrop(&self.stop);
            act();
        });
    }

    /// A step: `change` puts it into the kernel. The clients ask before and after it.
    pub(crate) fn step(&self, what: &str, step: C::Step, change: impl FnOnce()) {
        self.some_more();
        self.history.lock().expect("nobody panicked").push(step);
        change();
        self.committed.fetch_add(1, Ordering::SeqCst);
        self.some_more();
        eprintln!("{what}: {:?} answers so far", self.answered);
    }

    /// Waits until every client that somebody may answer has been answered twice more.
    pub(crate) fn some_more(&self) {
        let may_be_answered = |client: &C| {
            let history = self.history.lock().expect("nobody panicked");
            !client.may_answer(history.last().expect("there is a first one")).is_empty()
        };
        let before: Vec<_> = self.answered.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        for ((count, before), client) in self.answered.iter().zip(before).zip(&self.clients) {
            if may_be_answered(client) {
                eventually(&client.what(), || (count.load(Ordering::SeqCst) >= before + 2).then_some(()));
            }
        }
    }

    /// Asks until it is told to stop.
    fn ask(&self, number: usize) {
        let client = &self.clients[number];
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.committed.load(Ordering::SeqCst);
            let answer = client.ask();
            let history = self.history.lock().expect("nobody panicked");
            let allowed: Vec<_> = history[seen..].iter().map(|step| client.may_answer(step)).collect();
            drop(history);
            let right = match &answer {
                Ok(name) => allowed.iter().any(|names| names.contains(&name.as_str())),
                Err(error) => client.is_refused(error) && allowed.iter().any(Vec::is_empty),
            };
            assert!(right, "{}: got {answer:?}; {allowed:?} may answer", client.what());
            self.answered[number].fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Tells whoever looks that it is over.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
