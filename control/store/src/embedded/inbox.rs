//! What the writer waits for: a command, or the time of a synced commit.

use std::io;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout_at;

use super::writer::Command;

/// The writer's end of the queue of commands.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Command>,
    /// Of the writer's thread alone: a clock for the queue.
    clock: Runtime,
}

/// What came first.
pub(super) enum Next {
    Command(Command),
    /// The time.
    Due,
    /// The store is dropped.
    End,
}

impl Inbox {
    pub(super) fn new(queue: mpsc::Receiver<Command>) -> io::Result<Self> {
        Ok(Self { queue, clock: Builder::new_current_thread().enable_time().build()? })
    }

    /// Waits for a command, until it is due.
    pub(super) fn next(&mut self, due: Option<Instant>) -> Next {
        let command = match due {
            None => self.queue.blocking_recv(),
            Some(due) => {
                let received = self.clock.block_on(async { timeout_at(due.into(), self.queue.recv()).await });
                let Ok(command) = received else { return Next::Due };
                command
            }
        };
        command.map_or(Next::End, Next::Command)
    }

    /// A command that is here already.
    pub(super) fn try_next(&mut self) -> Result<Command, TryRecvError> {
        self.queue.try_recv()
    }

    /// How many commands wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the store is dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}
