//! Giving memory back that bursts have left.

use std::{fs, time::Duration};

use tokio_util::sync::CancellationToken;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How many pages of resident memory are a change.
const CHANGE: u64 = 256;

/// The allocator keeps what many lists at once have taken. After each second in which much was taken, and once more when it is
/// quiet again, what is free goes back to the kernel; a server that rests does nothing.
pub(super) async fn give_back_after_bursts(stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(EVERY);
    let (mut before, mut moved) = (resident(), false);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let moves = resident().abs_diff(before) > CHANGE;
        if moves || moved {
            tokio::task::spawn_blocking(fairlead_kernel::give_memory_back).await?;
        }
        (before, moved) = (resident(), moves);
    }
    Ok(())
}

/// Pages that are resident (`proc_pid_statm(5)`); 0 when the kernel does not say.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_resident_memory() {
        assert!(resident() > 0);
    }
}
