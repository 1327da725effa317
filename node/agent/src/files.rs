//! Files of the agent's own.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Replaces a file at once: a reader (or a crash) sees the old content or the new.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
