//! Writing answers.

use fairlead_zone::{Class, Name, Rcode, Record, RecordData, Soa};

use super::{Edns, HEADER_LEN, Request, UDP_MAX_EDNS};
use crate::chain::Message;

/// Size of our OPT record.
pub(crate) const OPT_LEN: usize = 11;
/// Places that names may point to; more would cost more time than they save bytes.
const PLACES_MAX: usize = 24;

/// Writes an answer of at most `size_max` bytes. Records that do not fit are left out: with the TC bit, unless they
/// are additional (RFC 2181 §9).
pub(crate) fn encode(
    out: &mut Vec<u8>,
    request: &Request,
    answer: &Message,
    recursion: bool,
    size_max: usize,
) {
    out.clear();
    let opt_len = request.edns.as_ref().map_or(0, |_| OPT_LEN + answer.options.len());
    let mut writer = Writer {
        out,
        places: [0; PLACES_MAX],
        places_len: 0,
        size_max: size_max.saturating_sub(opt_len),
        class: record_class(request),
    };
    writer.header(request, answer, recursion);
    let (answers, fit) = writer.section(&answer.answers);
    let (authorities, fit) = if fit { writer.section(&answer.authority) } else { (0, false) };
    let (additionals, _) = if fit { writer.section(&answer.additional) } else { (0, false) };
    set_u16(out, 6, answers);
    set_u16(out, 8, authorities);
    set_u16(out, 10, additionals);
    if !fit || answer.truncated {
        out[2] |= 0x02;
    }
    if let Some(edns) = &request.edns {
        push_opt(out, edns, answer.rcode, &answer.options);
    }
}

/// Writes a bare header with a status.
pub(crate) fn encode_status(out: &mut Vec<u8>, id: u16, opcode: u8, recursion_desired: bool, rcode: Rcode) {
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    out.push(0x80 | opcode << 3 | u8::from(recursion_desired));
    out.push(low_rcode(rcode));
    out.resize(HEADER_LEN, 0);
}

/// Appends our OPT record and counts it.
pub(crate) fn push_opt(out: &mut Vec<u8>, edns: &Edns, rcode: Rcode, options: &[u8]) {
    out.extend_from_slice(&[0, 0, 41]);
    out.extend_from_slice(&UDP_MAX_EDNS.to_be_bytes());
    let extended = u8::try_from(rcode.0 >> 4).unwrap_or(0);
    out.extend_from_slice(&[extended, 0, u8::from(edns.dnssec_ok) << 7, 0]);
    out.extend_from_slice(&u16::try_from(options.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(options);
    let count = u16::from_be_bytes([out[10], out[11]]);
    set_u16(out, 10, count + 1);
}

/// Records are of class IN, except in answers to questions about the server itself.
fn record_class(request: &Request) -> u16 {
    if request.question.class == Class::CHAOS { Class::CHAOS.0 } else { Class::IN.0 }
}

pub(crate) fn low_rcode(rcode: Rcode) -> u8 {
    rcode.0.to_le_bytes()[0] & 0x0f
}

fn set_u16(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Offsets of labels that later names may point to.
    places: [u16; PLACES_MAX],
    places_len: usize,
    size_max: usize,
    class: u16,
}

impl Writer<'_> {
    fn header(&mut self, request: &Request, answer: &Message, recursion: bool) {
        self.u16(request.id);
        let authoritative = u8::from(answer.authoritative) << 2;
        self.out.push(0x80 | authoritative | u8::from(request.recursion_desired));
        let checking_disabled = u8::from(request.checking_disabled) << 4;
        let authentic = u8::from(answer.authentic) << 5;
        self.out.push(u8::from(recursion) << 7 | authentic | checking_disabled | low_rcode(answer.rcode));
        self.out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        self.name(&request.question.name, true);
        self.u16(request.question.rtype.0);
        self.u16(request.question.class.0);
    }

    /// Writes records while they fit; says how many, and whether that was all.
    fn section(&mut self, records: &[Record]) -> (u16, bool) {
        let mut count = 0;
        for record in records {
            let start = self.out.len();
            let places = self.places_len;
            self.record(record);
            if self.out.len() > self.size_max || count == u16::MAX {
                self.out.truncate(start);
                self.places_len = places;
                return (count, false);
            }
            count += 1;
        }
        (count, true)
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name, true);
        self.u16(record.data.rtype().0);
        self.u16(self.class);
        self.u32(record.ttl_secs);
        let length_at = self.out.len();
        self.u16(0);
        match &record.data {
            RecordData::A(address) => self.out.extend_from_slice(&address.octets()),
            RecordData::Aaaa(address) => self.out.extend_from_slice(&address.octets()),
            RecordData::Cname(name) | RecordData::Ns(name) | RecordData::Ptr(name) => self.name(name, true),
            RecordData::Srv { priority, weight, port, target } => {
                self.u16(*priority);
                self.u16(*weight);
                self.u16(*port);
                // RFC 2782: the target is not compressed.
                self.name(target, false);
            }
            RecordData::Txt(text) => {
                let text = text.get(..255).unwrap_or(text);
                self.out.push(text.len().to_le_bytes()[0]);
                self.out.extend_from_slice(text);
            }
            RecordData::Soa(soa) => self.soa(soa),
            RecordData::Opaque { value, .. } => self.out.extend_from_slice(value),
        }
        let length = self.out.len() - length_at - 2;
        set_u16(self.out, length_at, u16::try_from(length).unwrap_or(u16::MAX));
    }

    fn soa(&mut self, soa: &Soa) {
        self.name(&soa.primary, true);
        self.name(&soa.mailbox, true);
        for value in [soa.serial, soa.refresh_secs, soa.retry_secs, soa.expire_secs, soa.minimum_secs] {
            self.u32(value);
        }
    }

    /// Writes a name; where the same bytes were written before, and it may, it points there.
    fn name(&mut self, name: &Name, compress: bool) {
        let mut rest = name.as_wire();
        while rest.len() > 1 {
            if let Some(place) = self.find(rest).filter(|_| compress) {
                self.u16(0xc000 | place);
                return;
            }
            let here = self.out.len();
            if self.places_len < PLACES_MAX && here < 0x4000 {
                self.places[self.places_len] = u16::try_from(here).unwrap_or(u16::MAX);
                self.places_len += 1;
            }
            let (label, behind) = rest.split_at(1 + usize::from(rest[0]));
            self.out.extend_from_slice(label);
            rest = behind;
        }
        self.out.push(0);
    }

    /// An earlier place with exactly these labels, case included: clients get names in the case they asked.
    fn find(&self, wire: &[u8]) -> Option<u16> {
        self.places[..self.places_len].iter().copied().find(|place| self.is_at(wire, usize::from(*place)))
    }

    fn is_at(&self, mut wire: &[u8], mut at: usize) -> bool {
        while let (Some(&length), Some(&there)) = (wire.first(), self.out.get(at)) {
            if there >= 0xc0 {
                // Our own pointers lead to earlier places only.
                at = usize::from(u16::from_be_bytes([there & 0x3f, self.out[at + 1]]));
                continue;
            }
            let size = 1 + usize::from(length);
            if length != there || self.out.get(at..at + size) != wire.get(..size) {
                return false;
            }
            if length == 0 {
                return true;
            }
            wire = &wire[size..];
            at += size;
        }
        false
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }
}
