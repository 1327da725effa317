//! The codec against hickory-proto, and against noise.

use fairlead_zone::{Record, RecordData, Soa};
use hickory_proto::{
    op::{self, Message, MessageType, OpCode},
    rr,
};
use proptest::prelude::*;

use super::*;
use crate::chain::Message as Answer;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A question as hickory writes it, with EDNS of a payload size when it is given one.
fn query(text: &str, payload_max: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(op::Query::query(rr::Name::from_ascii(text).unwrap(), rr::RecordType::A));
    if let Some(payload_max) = payload_max {
        let mut edns = op::Edns::new();
        edns.set_max_payload(payload_max).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn request(text: &str, payload_max: Option<u16>) -> Request {
    match decode(&query(text, payload_max)) {
        Incoming::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn status(rcode: Rcode) -> Answer {
    Answer::new(rcode)
}

fn addresses(owner: &str, count: u8) -> Answer {
    let record =
        |last| Record { name: name(owner), ttl_secs: 5, data: RecordData::A([10, 244, 0, last].into()) };
    Answer { authoritative: true, answers: (0..count).map(record).collect(), ..status(Rcode::NO_ERROR) }
}

fn written(request: &Request, answer: &Answer, size_max: usize) -> (Vec<u8>, Message) {
    let mut out = Vec::new();
    encode(&mut out, request, answer, true, size_max);
    assert!(out.len() <= size_max);
    let message = Message::from_vec(&out).expect("hickory reads what we write");
    (out, message)
}

#[test]
fn a_question_is_read_as_hickory_wrote_it() {
    let plain = request("Echo.demo.svc.cluster.local.", None);
    assert_eq!((plain.id, plain.recursion_desired, plain.edns.clone()), (7, true, None));
    assert_eq!(plain.question.name.to_string(), "Echo.demo.svc.cluster.local.");
    assert_eq!((plain.question.rtype, plain.question.class), (RecordType::A, Class::IN));
    assert_eq!(plain.udp_max(UDP_MAX_EDNS), 512);
    let edns = request("a.", Some(4096));
    assert_eq!(edns.edns, Some(Edns { payload_max: 4096, version: 0, dnssec_ok: true, options: Vec::new() }));
    assert_eq!(edns.udp_max(UDP_MAX_EDNS), 1232, "never so large that it must be fragmented");
    assert_eq!(
        request("a.", Some(100)).udp_max(UDP_MAX_EDNS),
        512,
        "a smaller size counts as 512 (RFC 6891 6.2.3)"
    );
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let good = query("a.", Some(1232));
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        decode(&bytes)
    };
    let rejected = |incoming, expected| match incoming {
        Incoming::Reject { rcode, id: 7, .. } => assert_eq!(rcode, expected),
        other => panic!("{other:?}"),
    };
    assert_eq!(changed(2, 0x81), Incoming::Ignore, "an answer is never answered");
    assert_eq!(decode(&good[..11]), Incoming::Ignore, "no whole header");
    rejected(changed(2, 0x21), Rcode::NOT_IMP);
    rejected(changed(5, 0), Rcode::FORM_ERR);
    rejected(changed(5, 2), Rcode::FORM_ERR);
    rejected(changed(12, 0xc0), Rcode::FORM_ERR);
    rejected(decode(&good[..good.len() - 1]), Rcode::FORM_ERR);
    rejected(decode(&[&good[..], &[0]].concat()), Rcode::FORM_ERR);
    let opt = &good[good.len() - OPT_LEN..];
    let mut twice = [&good[..], opt].concat();
    twice[11] = 2;
    rejected(decode(&twice), Rcode::FORM_ERR);
}

#[test]
fn every_kind_of_record_is_written_as_hickory_reads_it() {
    let owner = name("Echo.demo.svc.cluster.local");
    let record = |data| Record { name: owner.clone(), ttl_secs: 30, data };
    let soa = Soa {
        primary: name("ns.dns.cluster.local"),
        mailbox: name("hostmaster.cluster.local"),
        serial: 9,
        refresh_secs: 1,
        retry_secs: 2,
        expire_secs: 3,
        minimum_secs: 4,
    };
    let target = name("db-0.db.demo.svc.cluster.local");
    let answers = vec![
        record(RecordData::Cname(name("demo.svc.cluster.local"))),
        record(RecordData::A([10, 0, 0, 1].into())),
        record(RecordData::Aaaa("fd00::1".parse().unwrap())),
        record(RecordData::Srv { priority: 1, weight: 2, port: 3, target: target.clone() }),
        record(RecordData::Ptr(target.clone())),
        record(RecordData::Ns(target)),
        record(RecordData::Txt(b"1.1.0"[..].into())),
        record(RecordData::Opaque { rtype: RecordType(65_280), value: [1, 2, 3][..].into() }),
    ];
    let authority =
        vec![Record { name: name("cluster.local"), ttl_secs: 5, data: RecordData::Soa(Box::new(soa)) }];
    let answer = Answer { authoritative: true, answers, authority, ..status(Rcode::NO_ERROR) };
    let (bytes, message) = written(&request("Echo.demo.svc.cluster.local.", Some(1232)), &answer, 1232);
    assert!(
        message.metadata.authoritative
            && message.metadata.recursion_available
            && !message.metadata.truncation
    );
    let texts: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(
        texts[..7],
        [
            "demo.svc.cluster.local.",
            "10.0.0.1",
            "fd00::1",
            "1 2 3 db-0.db.demo.svc.cluster.local.",
            "db-0.db.demo.svc.cluster.local.",
            "db-0.db.demo.svc.cluster.local.",
            "1.1.0",
        ]
    );
    assert!(message.answers.iter().all(|record| record.name.to_string() == "Echo.demo.svc.cluster.local."));
    let soa = message.authorities[0].data.to_string();
    assert_eq!(soa, "ns.dns.cluster.local. hostmaster.cluster.local. 9 1 2 3 4");
    let edns = message.edns.expect("EDNS is answered with EDNS");
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, true));
    assert!(bytes.len() < 330, "names are compressed: {}", bytes.len());
}

#[test]
fn an_answer_that_does_not_fit_is_cut_at_a_record_with_the_tc_bit() {
    let owner = "db.demo.svc.cluster.local";
    let plain = request(&format!("{owner}."), None);
    let (_, small) = written(&plain, &addresses(owner, 20), 512);
    assert!(!small.metadata.truncation);
    assert_eq!(small.answers.len(), 20);
    let (bytes, cut) = written(&plain, &addresses(owner, 200), 512);
    assert!(cut.metadata.truncation);
    assert!(cut.answers.len() > 20 && bytes.len() > 490, "as many as fit");
    let edns = request(&format!("{owner}."), Some(1232));
    let (_, cut) = written(&edns, &addresses(owner, 200), edns.udp_max(UDP_MAX_EDNS));
    assert!(cut.metadata.truncation && cut.edns.is_some());
}

#[test]
fn additional_records_are_left_out_without_the_tc_bit() {
    let mut answer = addresses("a", 1);
    answer.additional = addresses("b.example", 200).answers;
    let (_, message) = written(&request("a.", None), &answer, 512);
    assert!(!message.metadata.truncation);
    assert_eq!(message.answers.len(), 1);
    assert!(!message.additionals.is_empty() && message.additionals.len() < 200);
}

#[test]
fn statuses_beyond_four_bits_need_edns() {
    let (_, message) = written(&request("a.", Some(1232)), &status(Rcode::BAD_VERS), 512);
    assert_eq!(u16::from(message.metadata.response_code), 16);
}

proptest! {
    #[test]
    fn noise_never_panics_and_replies_are_never_answered(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some(flags) = bytes.get_mut(2) {
            *flags |= 0x80;
        }
        prop_assert_eq!(decode(&bytes), Incoming::Ignore);
        if let Some(flags) = bytes.get_mut(2) {
            *flags &= 0x07;
        }
        let _ = decode(&bytes);
    }

    /// Damaged questions: where we accept, hickory accepts the same question.
    #[test]
    fn what_we_read_hickory_reads_too(at in 2usize..60, value: u8, cut in 12usize..60, text in "[a-z]{1,9}(\\.[A-Z0-9]{1,9}){0,4}") {
        let mut bytes = query(&format!("{text}."), Some(1232));
        let last = bytes.len() - 1;
        bytes[at.min(last)] = value;
        if cut < 20 {
            bytes.truncate(cut);
        }
        if let Incoming::Request(ours) = decode(&bytes) {
            let theirs = Message::from_vec(&bytes);
            if let Ok(theirs) = theirs {
                prop_assert_eq!(theirs.queries.len(), 1);
                let wire = {
                    use hickory_proto::serialize::binary::BinEncodable;
                    theirs.queries[0].name.to_bytes().unwrap()
                };
                prop_assert_eq!(ours.question.name.as_wire(), &wire[..]);
                prop_assert_eq!(ours.question.rtype.0, u16::from(theirs.queries[0].query_type));
                prop_assert_eq!(ours.edns.map(|edns| edns.version), theirs.edns.map(|edns| edns.version()));
            }
        }
    }

    #[test]
    fn answers_of_any_size_fit_and_can_be_read(count: u8, extra: u8, payload in proptest::option::of(any::<u16>()), label in "[a-zA-Z]{1,60}") {
        let owner = format!("{label}.demo.svc.cluster.local");
        let request = request(&format!("{owner}."), payload);
        let mut answer = addresses(&owner, count);
        answer.additional = addresses("x.demo.svc.cluster.local", extra).answers;
        let (_, message) = written(&request, &answer, request.udp_max(UDP_MAX_EDNS));
        prop_assert_eq!(message.metadata.truncation, message.answers.len() < usize::from(count));
    }
}
