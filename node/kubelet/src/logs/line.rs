//! One line of a CRI log file.

use jiff::Timestamp;

/// A parsed line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) time: &'a str,
    /// Whether the container wrote a newline here; otherwise the text goes on in the next line.
    pub(crate) complete: bool,
    pub(crate) text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Parses a line without its newline. `None` for what is no CRI line.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut parts = bytes.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let _stream = parts.next()?;
        let tag = parts.next()?;
        Some(Self { time, complete: tag != b"P", text: parts.next().unwrap_or_default() })
    }

    /// The line's time.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Writes a line.
pub(crate) fn format(out: &mut Vec<u8>, time: Timestamp, stream: &str, complete: bool, text: &[u8]) {
    out.extend_from_slice(format!("{time:.9} {stream} {} ", if complete { 'F' } else { 'P' }).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let time: Timestamp = "2030-01-02T03:04:05.000000006Z".parse().unwrap();
        let mut out = Vec::new();
        format(&mut out, time, "stdout", true, b"hello  world");
        assert_eq!(out, b"2030-01-02T03:04:05.000000006Z stdout F hello  world\n");
        let line = Line::parse(out.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(
            (line.timestamp(), line.complete, line.text),
            (Some(time), true, b"hello  world".as_slice())
        );
    }
}
