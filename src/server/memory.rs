//! Giving memory back that bursts have left.

use std::{fs, time::Duration};

use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How many pages of memory that was taken are a change.
const CHANGE: u64 = 256;

/// The allocator keeps what many lists at once have taken. After each second in which much was taken, and once more when it is
/// quiet again, what is free goes back to the kernel, and then the code that ran. The start is such a burst; a server that
/// rests does nothing.
pub(super) async fn give_back_after_bursts(stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    let (mut before, mut moved) = (taken(), true);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let moves = taken().abs_diff(before) > CHANGE;
        if moves || moved {
            tokio::task::spawn_blocking(fairlead_kernel::give_memory_back).await?;
        }
        if moved && !moves {
            tokio::task::spawn_blocking(fairlead_kernel::let_go_of_code).await?;
        }
        (before, moved) = (taken(), moves);
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
