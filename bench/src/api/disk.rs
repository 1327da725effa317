//! What the disk below the stores takes for a write that is to last.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::quantile;

/// How long each write is: about what a commit of a few dozen pods writes.
pub(super) const BYTES: u64 = 256 << 10;
const WRITES: usize = 300;
/// The writes go round in a file of so many.
const FILE_WRITES: usize = 100;

/// How long a write and its `fdatasync` take.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// Half of them at most.
    pub p50_ms: f64,
    /// 99 of a hundred at most.
    pub p99_ms: f64,
}

/// Writes where the stores are.
pub(super) fn run() -> Result<Disk> {
    let path = std::env::temp_dir().join(format!("fairlead-bench-{}-disk", std::process::id()));
    let mut file = File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let outcome = (0..WRITES).map(|n| write(&mut file, n % FILE_WRITES)).collect::<std::io::Result<Vec<_>>>();
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let mut taken = outcome.with_context(|| format!("cannot write {}", path.display()))?;
    taken.sort_unstable();
    let ms = |share| quantile(&taken, share).as_secs_f64() * 1e3;
    Ok(Disk { p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

fn write(file: &mut File, at: usize) -> std::io::Result<std::time::Duration> {
    let bytes = vec![at as u8; BYTES as usize];
    let start = Instant::now();
    file.seek(SeekFrom::Start(at as u64 * BYTES))?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    Ok(start.elapsed())
}
