//! When the writer waits for more commands before it commits those that are there.

use std::thread;
use std::time::Duration;

/// When there were more than so many commands in the last commits together, many write at once, and more commands are
/// about to come: waiting for them a moment saves commits, and with them more time than the wait takes. Who writes alone
/// waits for nobody.
const GATHER_FROM: usize = 2 * LAST_COMMITS;
/// How many commits are looked back at. One small commit among them says nothing: it is what comes after a disk that was
/// quick for once, and if it ended the waiting, all commits after it would be small.
const LAST_COMMITS: usize = 8;
/// Where so many wait already, a commit for more would save little.
const GATHER_ENOUGH: usize = 16;
/// Otherwise it is looked again after so long, so often at most.
const GATHER_EVERY: Duration = Duration::from_micros(250);
const GATHER_ROUNDS: usize = 4;

/// How many commands the last commits were for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    lens: [usize; LAST_COMMITS],
    next: usize,
}

impl Pace {
    /// Waits for more commands when more can be expected than wait already.
    pub(super) fn gather(&self, waiting: impl Fn() -> usize) {
        if self.lens.iter().sum::<usize>() <= GATHER_FROM {
            return;
        }
        for _ in 0..GATHER_ROUNDS {
            if waiting() >= GATHER_ENOUGH {
                return;
            }
            thread::sleep(GATHER_EVERY);
        }
    }

    /// A commit was for so many.
    pub(super) fn note(&mut self, len: usize) {
        self.lens[self.next % LAST_COMMITS] = len;
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn more_commands_are_waited_for_only_where_many_write_and_few_wait() {
        let rows = [
            // What the last commits were for, how many commands wait, and how often it is looked.
            (&[][..], 1, 0),
            (&[1; 20], 1, 0),
            (&[2; 8], 1, 0),
            (&[20], 1, GATHER_ROUNDS),
            (&[3; 8], 1, GATHER_ROUNDS),
            (&[3; 8], GATHER_ENOUGH - 1, GATHER_ROUNDS),
            (&[3; 8], GATHER_ENOUGH, 1),
            // One small commit does not end it, some do.
            (&[30, 30, 30, 1], 1, GATHER_ROUNDS),
            (&[30, 1, 1, 1, 1, 1, 1, 1, 1], 1, 0),
        ];
        for (lens, waiting, expected) in rows {
            let mut pace = Pace::default();
            lens.iter().for_each(|len| pace.note(*len));
            let looked = Cell::new(0);
            pace.gather(|| {
                looked.set(looked.get() + 1);
                waiting
            });
            assert_eq!(looked.get(), expected, "{lens:?} {waiting}");
        }
    }
}
