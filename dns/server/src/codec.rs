//! Messages as bytes (RFC 1035 §4.1, RFC 6891): reading questions and writing the zone's answers.
//!
//! Written by hand because it is the path of every question: it allocates once for the name and copies nothing else.
//! A property test compares it with hickory-proto, which reads and writes what comes from other servers.

use fairlead_zone::{Class, Name, Question, Rcode, RecordType};

mod encode;
mod glance;

pub(crate) use glance::{Glance, Key, glance};

pub(crate) use encode::{OPT_LEN, encode, encode_status, low_rcode, push_opt};

/// Size of a header.
pub(crate) const HEADER_LEN: usize = 12;
/// Largest answer over UDP without EDNS (RFC 1035 §4.2.1).
pub(crate) const UDP_MAX_PLAIN: usize = 512;
/// Largest answer over UDP that is sure not to be fragmented (DNS flag day 2020); also what we say we can take.
pub(crate) const UDP_MAX_EDNS: u16 = 1232;
/// Largest message over TCP.
pub(crate) const TCP_MAX: usize = 65_535;
/// Records behind the question that a client may send: OPT and a signature, and room for one more of each.
const EXTRA_RECORDS_MAX: usize = 4;

/// A question that can be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) id: u16,
    pub(crate) recursion_desired: bool,
    pub(crate) authentic_data: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) question: Question,
    pub(crate) edns: Option<Edns>,
    /// The serial of an SOA that came along: what who asks for a transfer has already (RFC 1995 §3).
    pub(crate) serial: Option<u32>,
}

/// What the client said in its OPT record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edns {
    pub(crate) payload_max: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    /// Options in wire form.
    pub(crate) options: Vec<u8>,
}

/// What a datagram or a frame is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Incoming {
    /// A question.
    Request(Request),
    /// Something to be refused with a bare header.
    Reject { id: u16, opcode: u8, recursion_desired: bool, rcode: Rcode },
    /// Too short, or an answer: a reply could start a loop between two servers.
    Ignore,
}

impl Request {
    /// The DO bit.
    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.as_ref().is_some_and(|edns| edns.dnssec_ok)
    }

    /// Largest answer over UDP: what the client takes, but no more than a limit, and 512 bytes in any case
    /// (RFC 6891 §6.2.3).
    pub(crate) fn udp_max(&self, limit: u16) -> usize {
        let payload_max = self.edns.as_ref().map_or(0, |edns| edns.payload_max.min(limit));
        usize::from(payload_max).max(UDP_MAX_PLAIN)
    }
}

/// Reads what a client sent.
pub(crate) fn decode(bytes: &[u8]) -> Incoming {
    let Some(&[id_high, id_low, flags, more_flags, ..]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Incoming::Ignore;
    };
    if flags & 0x80 != 0 {
        return Incoming::Ignore;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    let opcode = flags >> 3 & 0x0f;
    let recursion_desired = flags & 1 != 0;
    let reject = |rcode| Incoming::Reject { id, opcode, recursion_desired, rcode };
    if opcode != 0 {
        return reject(Rcode::NOT_IMP);
    }
    let Some((question, edns, serial)) = read_body(bytes) else {
        return reject(Rcode::FORM_ERR);
    };
    let authentic_data = more_flags & 0x20 != 0;
    let checking_disabled = more_flags & 0x10 != 0;
    Incoming::Request(Request {
        id,
        recursion_desired,
        authentic_data,
        checking_disabled,
        question,
        edns,
        serial,
    })
}

/// Reads the one question, the OPT record and the serial of an SOA; nothing may follow.
fn read_body(bytes: &[u8]) -> Option<(Question, Option<Edns>, Option<u32>)> {
    let [questions, answers, authorities, additionals] = counts(bytes)?;
    let records = answers + authorities + additionals;
    if questions != 1 || records > EXTRA_RECORDS_MAX {
        return None;
    }
    let name = Name::from_wire(bytes.get(HEADER_LEN..)?).ok()?;
    let mut at = HEADER_LEN + name.as_wire().len();
    let rtype = RecordType(u16_at(bytes, at)?);
    let class = Class(u16_at(bytes, at + 2)?);
    at += 4;
    let (mut edns, mut serial) = (None, None);
    for index in 0..records {
        let record = RawRecord::read(bytes, at)?;
        if record.rtype == RecordType::OPT {
            let in_additional = index >= answers + authorities;
            if edns.is_some() || !in_additional || record.value != at + 11 {
                return None;
            }
            let [_, version, flags, _] = record.ttl.to_be_bytes();
            edns = Some(Edns {
                payload_max: record.class,
                version,
                dnssec_ok: flags & 0x80 != 0,
                options: bytes[record.value..record.end].to_vec(),
            });
        } else if record.rtype == RecordType::SOA {
            // Behind two names there are five numbers, the serial first (RFC 1035 §3.3.13).
            let numbers = bytes.get(record.value..record.end)?.last_chunk::<20>()?;
            serial = numbers.first_chunk().copied().map(u32::from_be_bytes);
        }
        at = record.end;
    }
    (at == bytes.len()).then_some((Question { name, rtype, class }, edns, serial))
}

/// A record in a message: where its parts are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRecord {
    pub(crate) rtype: RecordType,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Where the TTL is.
    pub(crate) ttl_at: usize,
    /// Where the RDATA begins.
    pub(crate) value: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

impl RawRecord {
    /// Reads the record at an offset.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let at = skip_name(bytes, at)?;
        let fixed = bytes.get(at..)?.first_chunk::<10>()?;
        let [t0, t1, c0, c1, ttl0, ttl1, ttl2, ttl3, l0, l1] = *fixed;
        let end = at + 10 + usize::from(u16::from_be_bytes([l0, l1]));
        (end <= bytes.len()).then_some(Self {
            rtype: RecordType(u16::from_be_bytes([t0, t1])),
            class: u16::from_be_bytes([c0, c1]),
            ttl: u32::from_be_bytes([ttl0, ttl1, ttl2, ttl3]),
            ttl_at: at + 4,
            value: at + 10,
            end,
        })
    }
}

/// A question as a client without EDNS asks it.
pub(crate) fn plain_query(id: u16, question: &Question) -> Vec<u8> {
    let head = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let tail = [question.rtype.0.to_be_bytes(), question.class.0.to_be_bytes()].concat();
    [&id.to_be_bytes()[..], &head, question.name.as_wire(), &tail].concat()
}

/// An extended DNS error as an EDNS option (RFC 8914).
pub(crate) fn extended_error(code: u16, text: &str) -> Vec<u8> {
    let text = text.as_bytes().get(..200).unwrap_or(text.as_bytes());
    option(15, &[&code.to_be_bytes(), text].concat())
}

/// An EDNS option in wire form.
pub(crate) fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let value = &value[..usize::from(length)];
    [&code.to_be_bytes(), &length.to_be_bytes(), value].concat()
}

/// The options of an OPT record, as far as they can be read.
pub(crate) fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, length) = (u16_at(bytes, 0)?, usize::from(u16_at(bytes, 2)?));
        let value = bytes.get(4..4 + length)?;
        bytes = &bytes[4 + length..];
        Some((code, value))
    })
}

/// The four counts of a header.
pub(crate) fn counts(bytes: &[u8]) -> Option<[usize; 4]> {
    let count = |at| u16_at(bytes, at).map(usize::from);
    Some([count(4)?, count(6)?, count(8)?, count(10)?])
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Where the question ends.
pub(crate) fn question_end(bytes: &[u8]) -> Option<usize> {
    skip_name(bytes, HEADER_LEN).map(|at| at + 4).filter(|end| *end <= bytes.len())
}

/// Writes SERVFAIL for a packet that was taken for a question: its header and its question, without records.
pub(crate) fn refuse(packet: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let Some(end) = question_end(packet) else { return };
    out.extend_from_slice(&packet[..end]);
    out[2] = 0x80 | packet[2] & 0x79;
    out[3] = packet[3] & 0x10 | low_rcode(Rcode::SERV_FAIL);
    out[6..HEADER_LEN].fill(0);
}

/// Where a possibly compressed name ends. A pointer ends it; where that leads is not looked at.
pub(crate) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return (at + 2 <= bytes.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
