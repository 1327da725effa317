//! Replies of other servers: what is accepted, how long it is kept, what the client gets.

use fairlead_zone::{Class, RecordType};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{self, Name as HickoryName, RData, rdata},
};
use proptest::prelude::*;

use super::*;
use crate::codec::{Incoming, decode};

const ID: u16 = 0x1234;

fn question(text: &str) -> Question {
    Question { name: Name::parse(text).unwrap(), rtype: RecordType::A, class: Class::IN }
}

fn upstream_message(text: &str) -> Message {
    let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(HickoryName::from_ascii(text).unwrap(), rr::RecordType::A));
    message
}

fn address(owner: &str, ttl: u32) -> rr::Record {
    let data = RData::A(rdata::A([192, 0, 2, 1].into()));
    rr::Record::from_rdata(HickoryName::from_ascii(owner).unwrap(), ttl, data)
}

fn soa(ttl: u32, minimum: u32) -> rr::Record {
    let name = |text| HickoryName::from_ascii(text).unwrap();
    let data = rdata::SOA::new(name("ns.example."), name("root.example."), 1, 2, 3, 4, minimum);
    rr::Record::from_rdata(name("example."), ttl, RData::SOA(data))
}

fn parse(message: &Message) -> Result<Reply, ReplyError> {
    Reply::parse(&message.to_vec().unwrap(), ID, &question("www.example"))
}

fn client(text: &str, edns: bool) -> Request {
    let mut message = Message::new(9, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(HickoryName::from_ascii(text).unwrap(), rr::RecordType::A));
    if edns {
        message.set_edns(Edns::new());
    }
    match decode(&message.to_vec().unwrap()) {
        Incoming::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_answer_to_the_question_is_accepted() {
    let good = upstream_message("www.example.");
    assert!(parse(&good).is_ok());
    let mut other_id = good.clone();
    other_id.metadata.id = 1;
    assert_eq!(parse(&other_id).unwrap_err(), ReplyError::Mismatch);
    assert_eq!(parse(&upstream_message("evil.example.")).unwrap_err(), ReplyError::Mismatch);
    let mut other_type = good.clone();
    other_type.queries[0].query_type = rr::RecordType::AAAA;
    assert_eq!(parse(&other_type).unwrap_err(), ReplyError::Mismatch);
    let mut a_query = good.clone();
    a_query.metadata.message_type = MessageType::Query;
    assert_eq!(parse(&a_query).unwrap_err(), ReplyError::Mismatch);
    let mut cut = good.clone();
    cut.add_answer(address("www.example.", 60));
    let bytes = cut.to_vec().unwrap();
    let short = Reply::parse(&bytes[..bytes.len() - 1], ID, &question("www.example"));
    assert_eq!(short.unwrap_err(), ReplyError::Malformed);
}

#[test]
fn replies_are_kept_as_long_as_their_records_say() {
    let keep = |build: &dyn Fn(&mut Message)| {
        let mut message = upstream_message("www.example.");
        build(&mut message);
        parse(&message).unwrap().keep_secs
    };
    type Row<'a> = (&'a str, u32, &'a dyn Fn(&mut Message));
    let rows: [Row<'_>; 8] = [
        ("the shortest TTL", 20, &|m| {
            m.add_answer(address("www.example.", 60)).add_additional(address("ns.example.", 20));
        }),
        ("at most an hour", 3600, &|m| {
            m.add_answer(address("www.example.", 90_000));
        }),
        ("not at all with TTL 0", 0, &|m| {
            m.add_answer(address("www.example.", 0));
        }),
        ("not at all when truncated", 0, &|m| {
            m.add_answer(address("www.example.", 60));
            m.metadata.truncation = true;
        }),
        ("a denial as its SOA says", 30, &|m| {
            m.metadata.response_code = ResponseCode::NXDomain;
            m.add_authority(soa(900, 30));
        }),
        ("an empty answer as its SOA says", 40, &|m| {
            m.add_authority(soa(40, 300));
        }),
        ("a denial without SOA for a moment", 5, &|m| {
            m.metadata.response_code = ResponseCode::NXDomain;
        }),
        ("a failure not at all", 0, &|m| {
            m.metadata.response_code = ResponseCode::ServFail;
        }),
    ];
    for (rule, expected, build) in rows {
        assert_eq!(keep(build), expected, "{rule}");
    }
}

#[test]
fn a_client_gets_its_own_id_case_and_edns_and_aged_ttls() {
    let mut message = upstream_message("www.example.");
    message.add_answer(address("www.example.", 60));
    message.metadata.authoritative = true;
    message.set_edns(Edns::new());
    let reply = parse(&message).unwrap();
    let mut out = Vec::new();
    reply.write(&mut out, &client("WWW.Example.", false), 25, 512);
    let got = Message::from_vec(&out).unwrap();
    assert_eq!((got.metadata.id, got.answers[0].ttl), (9, 35));
    assert_eq!(got.answers[0].name.to_string(), "WWW.Example.");
    assert!(got.edns.is_none(), "the upstream's OPT is not the client's");
    assert!(
        !got.metadata.authoritative && got.metadata.recursion_available && got.metadata.recursion_desired
    );
    reply.write(&mut out, &client("www.example.", true), 0, 512);
    assert!(Message::from_vec(&out).unwrap().edns.is_some());
}

#[test]
fn an_opt_record_in_the_middle_is_taken_out_too() {
    let mut message = upstream_message("www.example.");
    message.add_answer(address("www.example.", 60));
    let mut bytes = message.to_vec().unwrap();
    bytes.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 50, 0, 4, 192, 0, 2, 2]);
    bytes[11] = 2;
    let reply = Reply::parse(&bytes, ID, &question("www.example")).unwrap();
    let mut out = Vec::new();
    reply.write(&mut out, &client("www.example.", true), 10, 512);
    let got = Message::from_vec(&out).unwrap();
    assert_eq!((got.answers[0].ttl, got.additionals[0].ttl), (50, 40));
    assert!(got.edns.is_some());
}

#[test]
fn a_reply_larger_than_the_client_can_take_is_cut_to_its_question() {
    let mut message = upstream_message("www.example.");
    message.add_answers((0..60).map(|_| address("www.example.", 60)));
    let reply = parse(&message).unwrap();
    let mut out = Vec::new();
    reply.write(&mut out, &client("www.example.", false), 0, 512);
    let got = Message::from_vec(&out).unwrap();
    assert!(got.metadata.truncation && got.answers.is_empty());
    reply.write(&mut out, &client("www.example.", false), 0, 65_535);
    assert_eq!(Message::from_vec(&out).unwrap().answers.len(), 60);
}

#[test]
fn records_for_the_end_of_an_alias_are_read_out_of_a_reply() {
    let name = |text| HickoryName::from_ascii(text).unwrap();
    let record = |owner, data| rr::Record::from_rdata(name(owner), 60, data);
    let mut message = upstream_message("www.example.");
    message
        .add_answer(record("www.example.", RData::CNAME(rdata::CNAME(name("web.example.")))))
        .add_answer(address("web.example.", 60))
        .add_answer(record("web.example.", RData::MX(rdata::MX::new(10, name("web.example.")))));
    let records = parse(&message).unwrap().to_message(0).unwrap().answers;
    let values: Vec<&RecordData> = records.iter().map(|record| &record.data).collect();
    let exchange = b"\0\x0a\x03web\x07example\0";
    assert_eq!(
        values,
        [
            &RecordData::Cname(Name::parse("web.example").unwrap()),
            &RecordData::A([192, 0, 2, 1].into()),
            &RecordData::Opaque { rtype: RecordType::MX, value: exchange[..].into() },
        ]
    );
    assert_eq!(records[2].name.to_string(), "web.example.");
}

proptest! {
    #[test]
    fn damaged_replies_never_panic(at in 0usize..120, value: u8, cut in 0usize..200, age: u32) {
        let mut message = upstream_message("www.example.");
        message.add_answer(address("www.example.", 60)).add_authority(soa(1, 2)).set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        let last = bytes.len() - 1;
        bytes[at.min(last)] = value;
        bytes.truncate(cut.max(100));
        if let Ok(reply) = Reply::parse(&bytes, ID, &question("www.example")) {
            let mut out = Vec::new();
            reply.write(&mut out, &client("www.example.", true), age, 512);
            let _ = reply.to_message(7);
        }
    }
}
