//! Our reader against hickory-proto's, on messages that hickory writes and on what damage makes of them.
//!
//! What hickory writes we read, the same. Of damaged messages we may refuse more than hickory does (bytes behind the end,
//! pointers in a question, a second OPT record), and what both read they read alike. A run is bounded: it is part of the
//! unit tests.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{self, DNSClass, Name, RData, rdata, rdata::opt::EdnsOption},
    serialize::binary::BinEncodable,
};
use proptest::{prelude::*, sample::select};

use super::{Incoming, Request, decode};
use crate::relay::Reply;

/// Messages of each kind that a run looks at.
const CASES: u32 = 2048;

type Labels = Vec<Vec<u8>>;

/// A byte of a message and what it becomes.
type Damage = Vec<(prop::sample::Index, u8)>;

fn labels() -> impl Strategy<Value = Labels> {
    let label = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 1..12),
        1 => prop::collection::vec(select(b"aZ-_09".to_vec()), 60..=63),
    ];
    prop::collection::vec(label, 0..=3)
}

fn edns() -> impl Strategy<Value = Edns> {
    let option = (1000..u16::MAX, prop::collection::vec(any::<u8>(), 0..20));
    (any::<(u16, bool, u8)>(), prop::collection::vec(option, 0..3)).prop_map(|(head, options)| {
        let (payload, dnssec_ok, version) = head;
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(dnssec_ok).set_version(version);
        for (code, value) in options {
            edns.options_mut().insert(EdnsOption::Unknown(code, value));
        }
        edns
    })
}

fn question() -> impl Strategy<Value = Message> {
    let class = select(vec![DNSClass::IN, DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE]);
    // Types that are about questions as such, and whatever a client may make up.
    let rtype = prop_oneof![select(vec![1u16, 5, 12, 28, 33, 43, 65, 252, 255]), 300..60_000u16];
    (any::<(u16, bool, bool, bool)>(), labels(), rtype, class, prop::option::of(edns())).prop_map(
        |((id, recursion, authentic, checking), labels, rtype, class, edns)| {
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = recursion;
            message.metadata.authentic_data = authentic;
            message.metadata.checking_disabled = checking;
            let mut query = Query::query(name(&labels), rtype.into());
            query.query_class = class;
            message.add_query(query);
            message.edns = edns;
            message
        },
    )
}

fn name(labels: &Labels) -> Name {
    let name = Name::from_labels(labels.iter().map(Vec::as_slice));
    let mut name = name.expect("at most three labels of at most 63 bytes");
    name.set_fqdn(true);
    name
}

/// Records of several types behind a question for an address, some with compressed names.
fn reply() -> impl Strategy<Value = Message> {
    let records = || prop::collection::vec((labels(), any::<u32>(), 0..4u8), 0..4);
    (labels(), records(), records(), records(), prop::option::of(edns())).prop_map(
        |(owner, answers, authorities, additionals, edns)| {
            let mut message = Message::new(7, MessageType::Response, OpCode::Query);
            message.add_query(Query::query(name(&owner), rr::RecordType::A));
            let make = |(labels, ttl, kind): &(Labels, u32, u8)| {
                let data = match kind {
                    0 => RData::A(rdata::A([192, 0, 2, 1].into())),
                    1 => RData::CNAME(rdata::CNAME(name(labels))),
                    2 => RData::MX(rdata::MX::new(10, name(labels))),
                    _ => RData::TXT(rdata::TXT::new(vec!["text".to_owned()])),
                };
                // Half of the owners repeat the question, as answers do.
                let owner = if ttl % 2 == 0 { name(&owner) } else { name(labels) };
                rr::Record::from_rdata(owner, ttl & 0x7fff_ffff, data)
            };
            message.add_answers(answers.iter().map(make));
            message.add_authorities(authorities.iter().map(make));
            message.add_additionals(additionals.iter().map(make));
            message.edns = edns.filter(|edns| edns.rcode_high() == 0);
            message
        },
    )
}

fn damaged(message: &Message, damage: &Damage, cut: Option<prop::sample::Index>) -> Vec<u8> {
    let mut bytes = message.to_vec().expect("hickory writes what it holds");
    for (at, value) in damage {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

fn damage() -> impl Strategy<Value = Damage> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
}

/// Every field that both have.
fn ensure_same(ours: &Request, theirs: &Message) -> Result<(), TestCaseError> {
    prop_assert_eq!(theirs.queries.len(), 1);
    let query = &theirs.queries[0];
    let wire = query.name.to_bytes().expect("it was read from bytes");
    prop_assert_eq!(ours.question.name.as_wire(), &wire[..]);
    prop_assert_eq!(ours.question.rtype.0, u16::from(query.query_type));
    prop_assert_eq!(ours.question.class.0, u16::from(query.query_class));
    let head = &theirs.metadata;
    prop_assert_eq!(ours.id, head.id);
    prop_assert_eq!(ours.recursion_desired, head.recursion_desired);
    prop_assert_eq!(ours.authentic_data, head.authentic_data);
    prop_assert_eq!(ours.checking_disabled, head.checking_disabled);
    prop_assert_eq!(ours.edns.is_some(), theirs.edns.is_some());
    if let (Some(ours), Some(theirs)) = (&ours.edns, &theirs.edns) {
        prop_assert_eq!(ours.version, theirs.version());
        // Below 512 means 512 (RFC 6891 §6.2.3); which of the two says so is a matter of taste.
        prop_assert_eq!(ours.payload_max.max(512), theirs.max_payload().max(512));
        prop_assert_eq!(ours.dnssec_ok, theirs.flags().dnssec_ok);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn every_question_that_hickory_writes_is_read_the_same(message in question()) {
        let bytes = message.to_vec().expect("hickory writes what it holds");
        let Incoming::Request(ours) = decode(&bytes) else {
            return Err(TestCaseError::fail(format!("refused: {bytes:?}")));
        };
        ensure_same(&ours, &message)?;
        let options: Vec<u8> = message.edns.iter().flat_map(|edns| edns.options().to_bytes()).flatten().collect();
        prop_assert_eq!(ours.edns.map_or(Vec::new(), |edns| edns.options), options);
    }

    #[test]
    fn of_a_damaged_question_both_read_the_same_or_one_refuses(
        message in question(), damage in damage(), cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let bytes = damaged(&message, &damage, cut);
        if let (Incoming::Request(ours), Ok(theirs)) = (decode(&bytes), Message::from_vec(&bytes)) {
            ensure_same(&ours, &theirs)?;
        }
    }

    #[test]
    fn every_reply_that_hickory_writes_is_taken_with_all_its_records(message in reply()) {
        let bytes = message.to_vec().expect("hickory writes what it holds");
        let question = question_of(&message);
        let ours = Reply::parse(&bytes, 7, &question);
        let Ok(ours) = ours else { return Err(TestCaseError::fail(format!("{ours:?}: {bytes:?}"))) };
        let read = ours.to_message(0).ok_or_else(|| TestCaseError::fail("its records cannot be read"))?;
        let counts = [read.answers.len(), read.authority.len(), read.additional.len()];
        prop_assert_eq!(counts, [message.answers.len(), message.authorities.len(), message.additionals.len()]);
        let ttls = read.answers.iter().chain(&read.authority).chain(&read.additional).map(|record| record.ttl_secs);
        let theirs = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
        prop_assert!(ttls.eq(theirs.map(|record| record.ttl)));
    }

    #[test]
    fn of_a_damaged_reply_both_read_the_same_or_one_refuses(
        message in reply(), damage in damage(), cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let question = question_of(&message);
        let bytes = damaged(&message, &damage, cut);
        if let (Ok(ours), Ok(theirs)) = (Reply::parse(&bytes, 7, &question), Message::from_vec(&bytes)) {
            prop_assert_eq!(ours.rcode().0 & 0x0f, u16::from(theirs.metadata.response_code) & 0x0f);
            prop_assert_eq!(ours.truncated(), theirs.metadata.truncation);
            if let Some(read) = ours.to_message(0) {
                let counts = [read.answers.len(), read.authority.len()];
                prop_assert_eq!(counts, [theirs.answers.len(), theirs.authorities.len()]);
            }
        }
    }
}

/// What a reply answers, as we ask it.
fn question_of(message: &Message) -> fairlead_zone::Question {
    let wire = message.queries[0].name.to_bytes().expect("it was made of labels");
    let name = fairlead_zone::Name::from_wire(&wire).expect("hickory's names are names");
    fairlead_zone::Question { name, rtype: fairlead_zone::RecordType::A, class: fairlead_zone::Class::IN }
}
