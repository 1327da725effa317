//! Giving memory back that bursts have left.

use std::{fs, time::Duration};

use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How many pages of memory that was taken are a change.
const CHANGE: u64 = 256;
/// How many seconds a burst goes on before memory is given back in the middle of it: whoever needs memory waits meanwhile.
const LONG: u32 = 30;
/// A server that uses no more of a processor than this in a second, in hundredths, rests.
const BUSY: u64 = 10;

/// The allocator keeps what many lists at once have taken. After each burst, which is a number of seconds in which much was
/// taken, and now and then in a long one, what is free goes back to the kernel, and after it the code that ran. The start is
/// such a burst; a server that rests does nothing.
///
/// It takes some milliseconds in which whoever needs memory waits, and code is slow after it. So a burst lasts until the
/// server rests: in the middle of work, the slowest answers of all would be those of that second.
pub(super) async fn give_back_after_bursts(stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    let mut burst = Burst { secs: 1 };
    let (mut before, mut worked) = (taken(), work());
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let is_busy = work().saturating_sub(worked) > BUSY;
        let due = burst.second(taken().abs_diff(before) > CHANGE, is_busy);
        if due != Due::Nothing {
            tokio::task::spawn_blocking(fairlead_kernel::give_memory_back).await?;
        }
        if due == Due::All {
            tokio::task::spawn_blocking(fairlead_kernel::let_go_of_code).await?;
        }
        (before, worked) = (taken(), work());
    }
    Ok(())
}

/// How long memory has been taken, or the server worked after it.
struct Burst {
    secs: u32,
}

/// What to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Memory,
    All,
}

impl Burst {
    /// A second is over; whether much was taken or returned in it, and whether the server was busy.
    fn second(&mut self, has_changed: bool, is_busy: bool) -> Due {
        let was_on = self.secs > 0;
        self.secs = if has_changed || was_on && is_busy { self.secs + 1 } else { 0 };
        match self.secs {
            0 if was_on => Due::All,
            LONG.. => {
                self.secs = 1;
                Due::Memory
            }
            _ => Due::Nothing,
        }
    }
}

/// Processor time of this process so far, in hundredths of a second (`proc_pid_stat(5)`); 0 when the kernel does not say.
fn work() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process, in brackets, may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Pages that are resident and not of files (`proc_pid_statm(5)`); 0 when the kernel does not say.
fn taken() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, of_files) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    resident.saturating_sub(of_files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_taken_memory_and_worked() {
        let start = work();
        while work() == start {
            std::hint::black_box(taken());
        }
        assert!(taken() > 0);
    }

    #[test]
    fn memory_is_given_back_when_the_server_rests_and_not_before() {
        use Due::{All, Memory, Nothing};
        // Whether memory changed, whether the server was busy, for how many seconds, and what is due in the last of them.
        let rows = [
            (false, true, 3, Nothing),
            (false, false, 1, All),
            (false, false, 5, Nothing),
            (false, true, 99, Nothing),
            (true, true, 4, Nothing),
            (false, true, 2, Nothing),
            (false, false, 1, All),
            (true, false, 1, Nothing),
            (true, true, 28, Nothing),
            (false, true, 1, Memory),
            (false, true, 28, Nothing),
            (true, false, 1, Memory),
            (false, false, 1, All),
        ];
        let mut burst = Burst { secs: 1 };
        for (index, (has_changed, is_busy, secs, expected)) in rows.into_iter().enumerate() {
            let last = (0..secs).map(|_| burst.second(has_changed, is_busy)).last();
            assert_eq!(last, Some(expected), "row {index}");
        }
    }
}
