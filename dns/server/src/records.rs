//! Records as text: zone files, and the lines of templates (RFC 1035 §5).

use std::borrow::Cow;

use fairlead_zone::{Name, Record, RecordData, RecordType};
use hickory_proto::{rr, serialize::txt::Parser};

use crate::relay::to_record;

/// A type that the parser reads as it would DNAME, which it does not know: nobody else may use it here.
const LIKE_DNAME: &str = "ANAME";

/// Reads the records of a zone file; relative names are below the origin.
pub(crate) fn parse_zone_text(text: &str, origin: &Name) -> Result<Vec<Record>, String> {
    let origin = rr::Name::from_ascii(origin.to_string()).map_err(|e| e.to_string())?;
    // The last record of a file needs its line's end.
    let text = text.lines().fold(String::new(), |text, line| text + &with_known_types(line) + "\n");
    let (_, sets) = Parser::new(text, None, Some(origin)).parse().map_err(|e| e.to_string())?;
    let records = sets.values().flat_map(|set| set.records_without_rrsigs());
    records
        .map(|record| to_record(record).ok_or_else(|| format!("cannot use the record {record}")))
        .map(named)
        .collect()
}

/// A line with a type that the parser knows in place of DNAME.
fn with_known_types(line: &str) -> Cow<'_, str> {
    let end = line.find(['"', ';']).unwrap_or(line.len());
    let mut at = line.find(char::is_whitespace).unwrap_or(end);
    while let Some(word) = line.get(at..end).and_then(|rest| rest.split_whitespace().next()) {
        at += line[at..].find(word).unwrap_or_default();
        if word.eq_ignore_ascii_case("DNAME") {
            return [&line[..at], LIKE_DNAME, &line[at + word.len()..]].concat().into();
        }
        // Before a type there are a TTL and a class only.
        let is_class = ["IN", "CH", "HS"].iter().any(|class| word.eq_ignore_ascii_case(class));
        if !is_class && !word.starts_with(|first: char| first.is_ascii_digit()) {
            break;
        }
        at += word.len();
    }
    line.into()
}

fn named(record: Result<Record, String>) -> Result<Record, String> {
    record.map(|record| match record.data {
        RecordData::Opaque { rtype, value } if rtype.0 == u16::from(rr::RecordType::ANAME) => {
            Record { data: RecordData::Opaque { rtype: RecordType::DNAME, value }, ..record }
        }
        _ => record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_text_is_a_record() {
        let origin = Name::parse("example.org").unwrap();
        let records = parse_zone_text("www 60 IN A 192.0.2.1", &origin).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].name.to_string().as_str(), records[0].ttl_secs), ("www.example.org.", 60));
        assert_eq!(records[0].data, RecordData::A([192, 0, 2, 1].into()));
        assert!(parse_zone_text("www 60 IN A x", &origin).is_err());
    }

    #[test]
    fn an_alias_of_a_tree_is_read_as_every_other_record() {
        let origin = Name::parse("example.org").unwrap();
        let rows = [
            ("a 60 IN DNAME other.test.", "a.example.org.", 60),
            ("$TTL 90\na DNAME other.test.", "a.example.org.", 90),
            ("b 70 IN A 192.0.2.1\na IN DNAME other.test. ; a comment", "a.example.org.", 70),
            ("a 60 IN TXT \"no DNAME here\"\n  dname other.test.", "a.example.org.", 60),
            ("dname 60 IN DNAME other.test.", "dname.example.org.", 60),
            ("a 60 IN DNAME (\n other.test. )", "a.example.org.", 60),
            ("b 60 IN TXT DNAME\na 61 IN DNAME other.test.", "a.example.org.", 61),
        ];
        for (text, name, ttl) in rows {
            let records = parse_zone_text(text, &origin).unwrap();
            let trees: Vec<&Record> =
                records.iter().filter(|record| record.data.rtype() == RecordType::DNAME).collect();
            let [tree] = trees[..] else { panic!("{text}: {records:?}") };
            assert_eq!((tree.name.to_string().as_str(), tree.ttl_secs), (name, ttl), "{text}");
            let RecordData::Opaque { value, .. } = &tree.data else { panic!("{tree:?}") };
            assert_eq!(&**value, Name::parse("other.test").unwrap().as_wire(), "{text}");
        }
    }
}
