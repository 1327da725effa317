//! A range of ports, as kube-apiserver's `--service-node-port-range` writes it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Ports from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of ports; write it as 30000-32767, with the smaller number first and above 0")]
pub struct PortRangeError(String);

/// As many ports at the start of the range are left to those who ask for one by number (KEP-3668: a 32nd of the range,
/// between 16 and 128, and nothing of a range that is no longer than that).
const STATIC_BAND: RangeInclusive<u32> = 16..=128;
const STATIC_BAND_SHARE: u32 = 32;

impl PortRange {
    /// Whether the range has the port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.all().contains(&port)
    }

    /// Every port of the range.
    pub(super) fn all(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// The first port that is handed out to whoever asks for any.
    pub(super) fn first_dynamic(&self) -> u16 {
        let count = u32::from(self.last - self.first) + 1;
        if count <= *STATIC_BAND.start() {
            return self.first;
        }
        let band = (count / STATIC_BAND_SHARE).clamp(*STATIC_BAND.start(), *STATIC_BAND.end());
        self.first + u16::try_from(band).expect("it is at most 128")
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 30_000, last: 32_767 }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let wrong = || PortRangeError(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || first > last { Err(wrong()) } else { Ok(Self { first, last }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_its_first_ports_are_left_to_those_who_name_one() {
        // range → the first that is handed out unasked
        let rows = [
            ("30000-32767", 30_086),
            ("30000-30015", 30_000),
            ("30000-30099", 30_016),
            ("1-65535", 129),
            ("30000", 30_000),
        ];
        for (text, expected) in rows {
            let range: PortRange = text.parse().unwrap();
            assert_eq!(range.first_dynamic(), expected, "{text}");
        }
        for wrong in ["", "a-b", "0-10", "10-9", "1-65536", "1-2-3"] {
            assert_eq!(wrong.parse::<PortRange>(), Err(PortRangeError(wrong.to_owned())));
        }
        assert_eq!(PortRange::default().to_string(), "30000-32767");
    }
}
