//! Giving memory back after work.

use std::{fs, time::Duration};

use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// A server that uses no more of a processor than this in a second, in hundredths, rests.
const BUSY: u64 = 10;

/// Lets go of the machine code that ran when the server rests after work; the start is work too. Code is slow after it, so
/// it is never done in the middle of work: the slowest answers of all would be those of that second.
pub(super) async fn let_go_of_code_after_work(stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    let (mut was_busy, mut before) = (true, work());
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let is_busy = work().saturating_sub(before) > BUSY;
        if was_busy && !is_busy {
            tokio::task::spawn_blocking(fairlead_kernel::let_go_of_code).await?;
        }
        (was_busy, before) = (is_busy, work());
    }
    Ok(())
}

/// Processor time of this process so far, in hundredths of a second (`proc_pid_stat(5)`); 0 when the kernel does not say.
fn work() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process, in brackets, may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_worked() {
        let start = work();
        while work() == start {
            std::hint::spin_loop();
        }
    }
}
