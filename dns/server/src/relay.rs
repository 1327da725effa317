//! Answers of other servers, kept as the bytes they came in and patched for each client.
//!
//! A reply stays as it is but for its id, flags, TTLs, and the name of its question, which gets the client's case;
//! compression pointers into the question then show that case everywhere. The OPT record concerns one hop only, so it
//! is taken out on arrival and ours is put in on departure.

use fairlead_zone::{Name, Question, Rcode, Record, RecordData, RecordType, Soa};
use hickory_proto::{
    op::Message,
    rr::RData,
    serialize::binary::{BinEncodable, BinEncoder, NameEncoding},
};

use crate::{
    chain,
    codec::{HEADER_LEN, OPT_LEN, RawRecord, Request, counts, push_opt, u16_at},
};

/// Longest time that an answer with records is kept.
const KEEP_MAX_SECS: u32 = 3600;
/// Longest time that a denial is kept.
const KEEP_DENIAL_MAX_SECS: u32 = 1800;
/// How long a denial without an SOA is kept: it says nothing about it, but asking again at once would be a storm.
const KEEP_BARE_DENIAL_SECS: u32 = 5;

/// Why bytes are no reply to a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReplyError {
    /// An answer to something else, or a forgery: keep waiting for the real one.
    Mismatch,
    /// The right answer, but unreadable.
    Malformed,
}

/// What a reply says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// Records.
    Success,
    /// No such name, or no such type.
    Denial,
    /// A failure.
    Failure,
}

/// A reply of another server.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The message without its OPT record.
    bytes: Box<[u8]>,
    /// Where its TTLs are.
    ttls: Box<[u16]>,
    /// Where its question ends.
    question_end: usize,
    pub(crate) meaning: Meaning,
    /// How long it may be kept; 0 is not at all.
    pub(crate) keep_secs: u32,
}

/// What walking over the records found.
#[derive(Default)]
struct Walk {
    ttls: Vec<u16>,
    ttl_min: Option<u32>,
    soa_keep: Option<u32>,
    /// Offsets of the OPT record.
    opt: Option<(usize, usize)>,
    extended_rcode: u8,
    has_wanted: bool,
}

impl Reply {
    /// Reads a message as the reply to a question that was sent with an id.
    pub(crate) fn parse(bytes: &[u8], id: u16, question: &Question) -> Result<Self, ReplyError> {
        let question_end = match_question(bytes, id, question).ok_or(ReplyError::Mismatch)?;
        let mut walk = walk(bytes, question_end, question.rtype).ok_or(ReplyError::Malformed)?;
        if walk.extended_rcode != 0 {
            return Err(ReplyError::Malformed);
        }
        let mut bytes = bytes.to_vec();
        if let Some((start, end)) = walk.opt {
            if end == bytes.len() {
                bytes.truncate(start);
                let additionals = u16_at(&bytes, 10).unwrap_or(1).saturating_sub(1);
                bytes[10..12].copy_from_slice(&additionals.to_be_bytes());
            } else {
                bytes = without_opt(&bytes).ok_or(ReplyError::Malformed)?;
                let again = self::walk(&bytes, question_end, question.rtype);
                walk.ttls = again.ok_or(ReplyError::Malformed)?.ttls;
            }
        }
        let rcode = Rcode(u16::from(bytes[3] & 0x0f));
        let truncated = bytes[2] & 0x02 != 0;
        let meaning = match rcode {
            Rcode::NO_ERROR if walk.has_wanted => Meaning::Success,
            Rcode::NO_ERROR | Rcode::NX_DOMAIN => Meaning::Denial,
            _ => Meaning::Failure,
        };
        let keep_secs = match meaning {
            _ if truncated => 0,
            Meaning::Success => walk.ttl_min.unwrap_or(0).min(KEEP_MAX_SECS),
            Meaning::Denial => {
                let keep = walk.soa_keep.unwrap_or(KEEP_BARE_DENIAL_SECS);
                keep.min(walk.ttl_min.unwrap_or(keep)).min(KEEP_DENIAL_MAX_SECS)
            }
            Meaning::Failure => 0,
        };
        Ok(Self { bytes: bytes.into(), ttls: walk.ttls.into(), question_end, meaning, keep_secs })
    }

    /// The response code.
    pub(crate) fn rcode(&self) -> Rcode {
        Rcode(u16::from(self.bytes[3] & 0x0f))
    }

    /// The TC bit.
    pub(crate) fn truncated(&self) -> bool {
        self.bytes[2] & 0x02 != 0
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The same with one TTL for all its records.
    pub(crate) fn with_ttl(&self, ttl_secs: u32) -> Self {
        let mut reply = self.clone();
        for at in &self.ttls {
            let at = usize::from(*at);
            if let Some(ttl) = reply.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                *ttl = ttl_secs.to_be_bytes();
            }
        }
        reply
    }

    /// Writes the reply for a client, of at most `size_max` bytes, as old as it is.
    pub(crate) fn write(&self, out: &mut Vec<u8>, request: &Request, age_secs: u32, size_max: usize) {
        out.clear();
        out.extend_from_slice(&self.bytes);
        out[..2].copy_from_slice(&request.id.to_be_bytes());
        let truncated = self.bytes[2] & 0x02;
        out[2] = 0x80 | truncated | u8::from(request.recursion_desired);
        let authentic = if request.dnssec_ok() { self.bytes[3] & 0x20 } else { 0 };
        out[3] = 0x80 | authentic | u8::from(request.checking_disabled) << 4 | self.bytes[3] & 0x0f;
        let name = request.question.name.as_wire();
        out[HEADER_LEN..HEADER_LEN + name.len()].copy_from_slice(name);
        for at in &self.ttls {
            let at = usize::from(*at);
            if let Some(ttl) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                *ttl = u32::from_be_bytes(*ttl).saturating_sub(age_secs).to_be_bytes();
            }
        }
        let opt_len = request.edns.as_ref().map_or(0, |_| OPT_LEN);
        if out.len() + opt_len > size_max {
            out.truncate(self.question_end);
            out[2] |= 0x02;
            out[6..12].fill(0);
        }
        if let Some(edns) = &request.edns {
            push_opt(out, edns, self.rcode(), &[]);
        }
    }

    /// The message as records of our own, as old as it is; `None` when it cannot be read.
    pub(crate) fn to_message(&self, age_secs: u32) -> Option<chain::Message> {
        let message = Message::from_vec(&self.bytes).ok()?;
        let section = |records: &[hickory_proto::rr::Record]| {
            let records = records.iter().map(|record| {
                let record = to_record(record)?;
                Some(Record { ttl_secs: record.ttl_secs.saturating_sub(age_secs), ..record })
            });
            records.collect::<Option<Vec<_>>>()
        };
        Some(chain::Message {
            authoritative: false,
            authentic: self.bytes[3] & 0x20 != 0,
            truncated: self.truncated(),
            answers: section(&message.answers)?,
            authority: section(&message.authorities)?,
            additional: section(&message.additionals)?,
            ..chain::Message::new(self.rcode())
        })
    }
}

/// A record of hickory's as one of ours.
pub(crate) fn to_record(record: &hickory_proto::rr::Record) -> Option<Record> {
    let name = |name: &hickory_proto::rr::Name| Name::from_wire(&uncompressed(name)?).ok();
    let data = match &record.data {
        RData::A(address) => RecordData::A(address.0),
        RData::AAAA(address) => RecordData::Aaaa(address.0),
        RData::CNAME(target) => RecordData::Cname(name(&target.0)?),
        RData::NS(server) => RecordData::Ns(name(&server.0)?),
        RData::PTR(target) => RecordData::Ptr(name(&target.0)?),
        RData::SRV(srv) => RecordData::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: name(&srv.target)?,
        },
        RData::SOA(soa) => RecordData::Soa(Box::new(Soa {
            primary: name(&soa.mname)?,
            mailbox: name(&soa.rname)?,
            serial: soa.serial,
            refresh_secs: soa.refresh.cast_unsigned(),
            retry_secs: soa.retry.cast_unsigned(),
            expire_secs: soa.expire.cast_unsigned(),
            minimum_secs: soa.minimum,
        })),
        other => RecordData::Opaque {
            rtype: RecordType(other.record_type().into()),
            value: uncompressed(other)?.into(),
        },
    };
    Some(Record { name: name(&record.name)?, ttl_secs: record.ttl, data })
}

/// Checks that bytes are a reply to the question; gives the end of its question.
fn match_question(bytes: &[u8], id: u16, question: &Question) -> Option<usize> {
    let is_reply = bytes.get(2)? & 0xf8 == 0x80;
    let [questions, ..] = counts(bytes)?;
    if u16_at(bytes, 0)? != id || !is_reply || questions != 1 {
        return None;
    }
    let name = Name::from_wire(bytes.get(HEADER_LEN..)?).ok()?;
    let at = HEADER_LEN + name.as_wire().len();
    let same = name == question.name
        && u16_at(bytes, at)? == question.rtype.0
        && u16_at(bytes, at + 2)? == question.class.0;
    same.then_some(at + 4)
}

/// Walks over all records of a message to its very end.
fn walk(bytes: &[u8], question_end: usize, wanted: RecordType) -> Option<Walk> {
    let [_, answers, authorities, additionals] = counts(bytes)?;
    let mut walk = Walk::default();
    let mut at = question_end;
    for index in 0..answers + authorities + additionals {
        let record = RawRecord::read(bytes, at)?;
        if record.rtype == RecordType::OPT {
            if index < answers + authorities || walk.opt.is_some() {
                return None;
            }
            walk.opt = Some((at, record.end));
            walk.extended_rcode = record.ttl.to_be_bytes()[0];
        } else {
            walk.ttls.push(u16::try_from(record.ttl_at).ok()?);
            walk.ttl_min = Some(walk.ttl_min.map_or(record.ttl, |least| least.min(record.ttl)));
        }
        let in_answers = index < answers;
        walk.has_wanted |= in_answers && (record.rtype == wanted || wanted == RecordType::ANY);
        if !in_answers && record.rtype == RecordType::SOA {
            let minimum = bytes.get(record.value..record.end)?.last_chunk::<4>()?;
            walk.soa_keep = Some(record.ttl.min(u32::from_be_bytes(*minimum)));
        }
        at = record.end;
    }
    (at == bytes.len()).then_some(walk)
}

/// The same message without its OPT record, where that is not the last one and cannot just be cut off.
fn without_opt(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(bytes).ok()?;
    message.edns = None;
    message.to_vec().ok()
}

fn uncompressed(value: &impl BinEncodable) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    value.emit(&mut encoder).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
