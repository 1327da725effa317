//! The second serial line, where results go.

use std::{
    fs::{File, OpenOptions},
    io::Write,
};

use anyhow::Context;

const LINE: &str = "/dev/ttyS1";

/// A writer of lines.
pub(crate) struct Report {
    line: File,
}

impl Report {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let line = OpenOptions::new().write(true).open(LINE);
        Ok(Self { line: line.with_context(|| format!("cannot open {LINE}"))? })
    }

    /// A line that a step printed.
    pub(crate) fn line(&mut self, text: &[u8]) {
        // Nobody could be told that nobody can be told.
        let _lost = self.line.write_all(&[text, b"\n"].concat());
    }

    /// A line of our own.
    pub(crate) fn control(&mut self, text: &str) {
        self.line(format!("@{text}").as_bytes());
    }
}
