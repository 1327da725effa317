//! A first look at a packet: whether it is an ordinary question, and which. It copies the name and allocates nothing.

use super::{HEADER_LEN, UDP_MAX_PLAIN, u16_at};

/// Longest name in wire form (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;
/// What stands before the name in a key.
const FIXED: usize = 5;
/// Size of an OPT record without options.
const BARE_OPT_LEN: usize = 11;
/// Header bits that decide about an answer: RD in the first byte, AD and CD in the second.
const DECISIVE: [u8; 2] = [0x01, 0x30];

/// What makes two questions the same: name in lower case, type, class, and every bit that an answer may depend on.
#[derive(Clone)]
pub(crate) struct Key {
    bytes: [u8; FIXED + NAME_MAX],
    len: usize,
}

/// An ordinary question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Glance {
    /// Length of the name in wire form; it begins behind the header.
    pub(crate) name_len: usize,
    /// Largest answer over UDP that the client takes.
    pub(crate) size_max: usize,
    /// The name has no capital letters.
    pub(crate) lower: bool,
}

impl Key {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; FIXED + NAME_MAX], len: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads an ordinary question: opcode QUERY, one question, and behind it nothing or one OPT record of version 0 without
/// options. Everything else, good or bad, is for the full decoder.
pub(crate) fn glance(packet: &[u8], key: &mut Key) -> Option<Glance> {
    let header = packet.first_chunk::<HEADER_LEN>()?;
    let [_, _, flags, more_flags, 0, 1, 0, 0, 0, 0, 0, extra @ (0 | 1)] = *header else { return None };
    // QR, opcode, AA and TC must be clear; RA and Z mean nothing in a question but are for the decoder.
    if flags & !DECISIVE[0] != 0 || more_flags & !DECISIVE[1] != 0 {
        return None;
    }
    let name_len = name_len(&packet[HEADER_LEN..])?;
    let name = &packet[HEADER_LEN..HEADER_LEN + name_len];
    let at = HEADER_LEN + name_len;
    let question = packet.get(at..at + 4)?;
    let (size_max, edns) = match extra {
        0 => (packet.len() == at + 4).then_some((UDP_MAX_PLAIN, 0))?,
        _ => bare_opt(packet.get(at + 4..)?)?,
    };
    let target = &mut key.bytes[FIXED..][..name_len];
    let mut capitals = 0;
    for (to, from) in target.iter_mut().zip(name) {
        // Length bytes are below 64, where there are no letters.
        *to = from.to_ascii_lowercase();
        capitals |= *to ^ from;
    }
    key.bytes[0] = flags & DECISIVE[0] | more_flags & DECISIVE[1] | edns;
    key.bytes[1..5].copy_from_slice(question);
    key.len = FIXED + name_len;
    Some(Glance { name_len, size_max, lower: capitals == 0 })
}

/// Length of the uncompressed name at the start of `bytes`.
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return (at < NAME_MAX).then_some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// Size that the client takes, and the bits of a key for EDNS and DO.
fn bare_opt(bytes: &[u8]) -> Option<(usize, u8)> {
    let [0, 0, 41, _, _, 0, 0, flags, 0, 0, 0] = *bytes.first_chunk::<BARE_OPT_LEN>()? else { return None };
    if bytes.len() != BARE_OPT_LEN || flags & 0x7f != 0 {
        return None;
    }
    let size = usize::from(u16_at(bytes, 3)?).max(UDP_MAX_PLAIN);
    Some((size, 0x80 | flags >> 1 & 0x40))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Incoming, decode};

    const PLAIN: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04EcHo\x04demo\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";

    fn with_opt(opt: &[u8]) -> Vec<u8> {
        let mut packet = [PLAIN, opt].concat();
        packet[11] = 1;
        packet
    }

    #[test]
    fn ordinary_questions_are_told_apart_by_what_decides_their_answer() {
        let mut key = Key::new();
        let glanced = glance(PLAIN, &mut key).unwrap();
        assert_eq!(glanced, Glance { name_len: 11, size_max: 512, lower: false });
        assert_eq!(key.as_bytes(), b"\x01\0\x01\0\x01\x04echo\x04demo\0");
        let glanced = glance(&with_opt(OPT), &mut key).unwrap();
        assert_eq!((glanced.size_max, key.as_bytes()[0]), (1232, 0xc1));
    }

    #[test]
    fn what_is_not_ordinary_is_left_to_the_decoder() {
        let mut key = Key::new();
        let altered = |at: usize, value: u8| {
            let mut packet = PLAIN.to_vec();
            packet[at] = value;
            packet
        };
        let rows: [(&str, Vec<u8>); 9] = [
            ("an answer", altered(2, 0x81)),
            ("another opcode", altered(2, 0x29)),
            ("two questions", altered(5, 2)),
            ("an answer record", altered(7, 1)),
            ("a pointer for a name", altered(12, 0xc0)),
            ("bytes behind the question", [PLAIN, b"x"].concat()),
            ("a question cut short", PLAIN[..PLAIN.len() - 1].to_vec()),
            ("another EDNS version", with_opt(b"\0\0\x29\x04\xd0\0\x01\0\0\0\0")),
            ("EDNS options", with_opt(b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0a\0\0")),
        ];
        for (what, packet) in rows {
            assert_eq!(glance(&packet, &mut key), None, "{what}");
        }
    }

    proptest! {
        /// Damaged questions: what a glance takes for ordinary, the decoder reads, and reads the same.
        #[test]
        fn a_glance_sees_what_the_decoder_reads(at in 2usize..40, value: u8, cut in 12usize..60, edns: bool) {
            let mut packet = if edns { with_opt(OPT) } else { PLAIN.to_vec() };
            let last = packet.len() - 1;
            packet[at.min(last)] = value;
            if cut < 16 {
                packet.truncate(cut);
            }
            let mut key = Key::new();
            let Some(glanced) = glance(&packet, &mut key) else { return Ok(()) };
            let Incoming::Request(request) = decode(&packet) else {
                return Err(TestCaseError::fail("the decoder does not take it"));
            };
            let name = request.question.name.as_wire();
            prop_assert_eq!(&key.as_bytes()[FIXED..], &*request.question.name.to_lower_wire());
            prop_assert_eq!(glanced.name_len, name.len());
            prop_assert_eq!(glanced.lower, !name.iter().any(u8::is_ascii_uppercase));
            prop_assert_eq!(u16_at(key.as_bytes(), 1), Some(request.question.rtype.0));
            prop_assert_eq!(u16_at(key.as_bytes(), 3), Some(request.question.class.0));
            let bits = key.as_bytes()[0];
            let seen = [bits & 0x01, bits & 0x10, bits & 0x20, bits & 0x40, bits & 0x80].map(|bit| bit != 0);
            let (cd, ad) = (request.checking_disabled, request.authentic_data);
            let read = [request.recursion_desired, cd, ad, request.dnssec_ok(), request.edns.is_some()];
            prop_assert_eq!(seen, read);
            let payload = request.edns.map_or(0, |edns| usize::from(edns.payload_max));
            prop_assert_eq!(glanced.size_max, payload.max(UDP_MAX_PLAIN));
        }
    }
}
