//! What modes must know of former lives of the agent: files in its state directory, with an entry a line.

use std::{collections::BTreeSet, fmt::Display, fs, io, path::Path, str::FromStr};

use fairlead_kernel::KernelError;

use crate::files::replace;

/// The entries; none when there is no such file.
///
/// # Errors
/// The file cannot be read, or a line is of another version.
pub(crate) fn read<T: FromStr + Ord>(path: &Path) -> Result<Option<BTreeSet<T>>, KernelError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("reading", path)(error)),
    };
    let entry = |line: &str| line.parse().map_err(|_| failed("reading", path)(unknown(line)));
    text.lines().map(entry).collect::<Result<_, _>>().map(Some)
}

/// Replaces the entries at once.
///
/// # Errors
/// The file cannot be written; it stays as it was.
pub(crate) fn write(path: &Path, entries: impl IntoIterator<Item: Display>) -> Result<(), KernelError> {
    let text: String = entries.into_iter().map(|entry| format!("{entry}\n")).collect();
    replace(path, text.as_bytes()).map_err(failed("writing", path))
}

/// Removes the file, if it is there.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn forget(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", path)(error)),
        _ => Ok(()),
    }
}

fn unknown(line: &str) -> io::Error {
    let message =
        format!("this version does not know {line:?}; use the one that wrote it, or remove the line");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError {
    move |source| KernelError::File { operation, path: path.to_owned(), source }
}
