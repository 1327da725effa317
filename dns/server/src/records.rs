//! Records as text: zone files, and the lines of templates (RFC 1035 §5).

use fairlead_zone::{Name, Record, RecordData, RecordType};
use hickory_proto::{rr, serialize::txt::Parser};

use crate::relay::to_record;

/// Reads the records of a zone file; relative names are below the origin.
pub(crate) fn parse_zone_text(text: &str, origin: &Name) -> Result<Vec<Record>, String> {
    let has_dname = |line: &&str| line.split_whitespace().any(|word| word.eq_ignore_ascii_case("DNAME"));
    let mut records = parse(text.lines().filter(|line| !has_dname(line)), origin)?;
    // The parser does not know DNAME. Its text is that of CNAME, and it needs the directives around it.
    if text.lines().any(|line| has_dname(&line)) {
        let lines = text.lines().filter(|line| has_dname(line) || line.starts_with('$'));
        let as_alias = |line: &str| {
            let words = line.split_whitespace();
            let words = words.map(|word| if word.eq_ignore_ascii_case("DNAME") { "CNAME" } else { word });
            words.collect::<Vec<_>>().join(" ")
        };
        let lines: Vec<String> = lines.map(as_alias).collect();
        for record in parse(lines.iter().map(String::as_str), origin)? {
            let RecordData::Cname(target) = &record.data else { continue };
            let data = RecordData::Opaque { rtype: RecordType::DNAME, value: target.as_wire().into() };
            records.push(Record { data, ..record });
        }
    }
    Ok(records)
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>, origin: &Name) -> Result<Vec<Record>, String> {
    let origin = rr::Name::from_ascii(origin.to_string()).map_err(|e| e.to_string())?;
    // The last record of a file needs its line's end.
    let mut text: String = lines.collect::<Vec<_>>().join("\n");
    text.push('\n');
    let (_, sets) = Parser::new(text, None, Some(origin)).parse().map_err(|e| e.to_string())?;
    let records = sets.values().flat_map(|set| set.records_without_rrsigs());
    records.map(|record| to_record(record).ok_or_else(|| format!("cannot use the record {record}"))).collect()
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
}
