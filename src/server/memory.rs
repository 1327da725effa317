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

/// The allocator keeps what many lists at once have taken. After each burst, which is a number of seconds in which much was
/// taken, and now and then in a long one, what is free goes back to the kernel, and after it the code that ran. The start is
/// such a burst; a server that rests does nothing.
pub(super) async fn give_back_after_bursts(stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    let (mut before, mut burst) = (taken(), 1);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let goes_on = taken().abs_diff(before) > CHANGE;
        let is_over = burst > 0 && !goes_on;
        burst = if goes_on { burst + 1 } else { 0 };
        if is_over || burst >= LONG {
            tokio::task::spawn_blocking(fairlead_kernel::give_memory_back).await?;
            burst = burst.min(1);
        }
        if is_over {
            tokio::task::spawn_blocking(fairlead_kernel::let_go_of_code).await?;
        }
        before = taken();
    }
    Ok(())
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
    fn this_process_has_taken_memory() {
        assert!(taken() > 0);
    }
}
