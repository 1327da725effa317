//! Domain names in wire form (RFC 1035 §3.1), compared without regard to ASCII case (RFC 4343).

use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// Longest label in bytes (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;
/// Longest name in wire form, with its final zero byte (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

/// A fully qualified name: labels with their length bytes, ending in the zero byte of the root.
#[derive(Clone)]
pub struct Name {
    wire: Box<[u8]>,
}

/// Why a text or a byte string is no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// A label is empty.
    EmptyLabel,
    /// A label is longer than 63 bytes.
    LongLabel,
    /// The name is longer than 255 bytes.
    LongName,
    /// The bytes end inside the name, or it holds a compression pointer.
    Malformed,
}

/// The labels of a name from left to right, without the root.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyLabel => "a label is empty",
            Self::LongLabel => "a label is longer than 63 bytes",
            Self::LongName => "the name is longer than 255 bytes",
            Self::Malformed => "the name is malformed",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The root, `.`: every name is below it.
    pub fn root() -> Self {
        Self { wire: [0].into() }
    }

    /// Parses dotted text; the final dot may be missing. There are no escapes.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let labels: Vec<&[u8]> =
            if text.is_empty() { Vec::new() } else { text.split('.').map(str::as_bytes).collect() };
        Self::join(&labels, &[0])
    }

    /// Reads an uncompressed name from the start of `bytes`; its length in bytes is `as_wire().len()`.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at).ok_or(NameError::Malformed)?);
            if length > LABEL_MAX {
                return Err(NameError::Malformed);
            }
            at += 1 + length;
            if at > NAME_MAX {
                return Err(NameError::LongName);
            }
            if length == 0 {
                let wire = bytes.get(..at).ok_or(NameError::Malformed)?;
                return Ok(Self { wire: wire.into() });
            }
        }
    }

    /// Puts labels before a suffix in wire form (which ends in the root's zero byte).
    pub fn join(labels: &[&[u8]], suffix: &[u8]) -> Result<Self, NameError> {
        let length = labels.iter().map(|label| label.len() + 1).sum::<usize>() + suffix.len();
        if length > NAME_MAX {
            return Err(NameError::LongName);
        }
        let mut wire = Vec::with_capacity(length);
        for label in labels {
            if label.is_empty() {
                return Err(NameError::EmptyLabel);
            }
            let size = u8::try_from(label.len()).map_err(|_| NameError::LongLabel)?;
            if label.len() > LABEL_MAX {
                return Err(NameError::LongLabel);
            }
            wire.push(size);
            wire.extend_from_slice(label);
        }
        wire.extend_from_slice(suffix);
        Ok(Self { wire: wire.into() })
    }

    /// The wire form, as it stands in a message.
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    /// The wire form in lower case: a key for maps.
    pub fn to_lower_wire(&self) -> Box<[u8]> {
        self.wire.to_ascii_lowercase().into()
    }

    /// The labels from left to right.
    pub fn labels(&self) -> Labels<'_> {
        Labels { rest: &self.wire }
    }

    /// Where `suffix` begins in this name's wire form, when this name is `suffix` or below it.
    pub fn find_suffix(&self, suffix: &Self) -> Option<usize> {
        let start = self.wire.len().checked_sub(suffix.wire.len())?;
        if !self.wire[start..].eq_ignore_ascii_case(&suffix.wire) {
            return None;
        }
        let mut at = 0;
        while at < start {
            at += 1 + usize::from(self.wire[at]);
        }
        (at == start).then_some(start)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // Length bytes are below 64, where there are no letters, so bytes compare as labels do.
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in &self.wire {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wire.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.rest.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(label)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_compare_without_case_but_keep_it() {
        assert_eq!(name("Echo.Demo."), name("echo.demo"));
        assert_eq!(name("Echo.Demo").to_string(), "Echo.Demo.");
        assert_eq!(name("").to_string(), ".");
    }

    #[test]
    fn a_suffix_begins_at_a_label() {
        let zone = name("cluster.local");
        assert_eq!(name("a.Cluster.local").find_suffix(&zone), Some(2));
        assert_eq!(name("cluster.local").find_suffix(&zone), Some(0));
        assert_eq!(name("xcluster.local").find_suffix(&zone), None);
        assert_eq!(name("local").find_suffix(&zone), None);
        // Ends in the same bytes, but the length byte 7 belongs to the label before it.
        let inside = Name::from_wire(b"\x0f\x07cluster\x05local\0\0").unwrap();
        assert_eq!(inside.find_suffix(&zone), None);
    }

    #[test]
    fn limits_of_rfc_1035_hold() {
        assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::LongLabel));
        assert!(Name::parse(&"a".repeat(63)).is_ok());
        assert_eq!(Name::parse("a..b"), Err(NameError::EmptyLabel));
        let long = [&"a".repeat(63)[..]; 4].join(".");
        assert_eq!(Name::parse(&long), Err(NameError::LongName));
        assert_eq!(Name::from_wire(b"\xc0\x0c"), Err(NameError::Malformed));
        assert_eq!(Name::from_wire(b"\x03ab"), Err(NameError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_name_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::from_wire(&bytes) {
                prop_assert_eq!(name.as_wire(), &bytes[..name.as_wire().len()]);
                let labels: Vec<&[u8]> = name.labels().collect();
                prop_assert_eq!(Name::join(&labels, &[0]), Ok(name));
            }
        }
    }
}
