//! Reading JSON or YAML and noting the keys that are there twice, of which the last one counts. A body may not hold more
//! values than [`VALUES_MAX`]: in memory one takes a hundred times what it takes on the wire. Nor may it hold much more
//! text than it is long, as it can in YAML, where one text may be meant in a hundred thousand places.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many values a body may hold. The largest objects that anybody stores, of a megabyte, hold a third of that.
pub(crate) const VALUES_MAX: usize = 200_000;

/// How many bytes of text a body may hold beyond its length.
const TEXT_BYTES_SPARE: usize = 1 << 20;
/// So many duplicate keys are named.
const DUPLICATES_MAX: usize = 100;

/// Reads a value from a body of this length; the paths of duplicate keys, such as `spec.ports[0].port`, come with it.
pub(super) fn read<'de, D: Deserializer<'de>>(
    from: D,
    body_bytes: usize,
) -> Result<(Value, Vec<String>), D::Error> {
    let mut duplicates = Vec::new();
    let mut left = Left { values: VALUES_MAX, text_bytes: body_bytes.saturating_add(TEXT_BYTES_SPARE) };
    let value =
        Reader { path: &Path::Top, duplicates: &mut duplicates, left: &mut left }.deserialize(from)?;
    Ok((value, duplicates))
}

/// What a body may still hold.
struct Left {
    values: usize,
    text_bytes: usize,
}

impl Left {
    fn take_value<E: Error>(&mut self) -> Result<(), E> {
        let too_many = || E::custom(format_args!("it holds more than {VALUES_MAX} values"));
        self.values = self.values.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    fn take_text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        let too_much = || E::custom("it holds much more text than it is long");
        self.text_bytes = self.text_bytes.checked_sub(text.len()).ok_or_else(too_much)?;
        Ok(())
    }
}

/// Where a value is.
enum Path<'p> {
    Top,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

struct Reader<'r> {
    path: &'r Path<'r>,
    duplicates: &'r mut Vec<String>,
    left: &'r mut Left,
}

impl Path<'_> {
    fn render(&self) -> String {
        match self {
            Self::Top => String::new(),
            Self::Key(Self::Top, key) => (*key).to_owned(),
            Self::Key(outer, key) => format!("{}.{key}", outer.render()),
            Self::Index(outer, index) => format!("{}[{index}]", outer.render()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.left.take_value()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.left.take_text(value)?;
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.left.take_text(&value)?;
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Path::Index(self.path, list.len());
            let reader = Reader { path: &path, duplicates: &mut *self.duplicates, left: &mut *self.left };
            match items.next_element_seed(reader)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.left.take_text(&key)?;
            let path = Path::Key(self.path, &key);
            if map.contains_key(&key) && self.duplicates.len() < DUPLICATES_MAX {
                let path = path.render();
                self.left.take_text(&path)?;
                self.duplicates.push(path);
            }
            let reader = Reader { path: &path, duplicates: &mut *self.duplicates, left: &mut *self.left };
            let value = entries.next_value_seed(reader)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read_json(text: &str) -> (Value, Vec<String>) {
        let mut from = serde_json::Deserializer::from_str(text);
        let read = read(&mut from, text.len()).expect("it is JSON");
        from.end().expect("nothing follows");
        read
    }

    #[test]
    fn keys_that_are_there_twice_are_named_and_the_last_one_counts() {
        let (value, duplicates) =
            read_json(r#"{"a": 1, "b": [{}, {"c": 1, "c": {"d": 1, "d": 2}}], "a": null}"#);
        assert_eq!(value, json!({ "a": null, "b": [{}, { "c": { "d": 2 } }] }));
        assert_eq!(duplicates, ["b[1].c", "b[1].c.d", "a"]);
    }

    #[test]
    fn what_is_short_and_means_much_is_refused() {
        let long = "x".repeat(64 << 10);
        let aliases = format!("a: &a \"{long}\"\nb: [{}]\n", "*a,".repeat(32));
        let keys = format!("a: &a \"{long}\"\nb: [{}]\n", "{*a : 1},".repeat(32));
        for body in [aliases, keys] {
            let from = serde_yaml_ng::Deserializer::from_str(&body);
            let error = read(from, body.len()).expect_err("it means two megabytes").to_string();
            assert!(error.contains("much more text than it is long"), "{error}");
        }
        let twice = format!("{{\"{long}\":{{{}\"a\":0}}}}", "\"a\":0,".repeat(1_000));
        let mut from = serde_json::Deserializer::from_str(&twice);
        let error = read(&mut from, twice.len()).expect_err("its problems are longer than it is").to_string();
        assert!(error.contains("much more text than it is long"), "{error}");
        let many = format!("{{{}\"a\":0}}", "\"a\":0,".repeat(1_000));
        assert_eq!(read_json(&many).1.len(), DUPLICATES_MAX);
    }

    proptest! {
        #[test]
        fn everything_else_reads_as_it_does_without_the_check(
            texts: Vec<String>, whole: i64, positive: u64, real: f64, yes: bool,
        ) {
            let value = json!({ "t": texts, "n": [whole, positive, real], "o": { "y": yes, "z": null } });
            let text = value.to_string();
            let expected: Value = serde_json::from_str(&text).expect("it was written as JSON");
            prop_assert_eq!(read_json(&text), (expected, Vec::new()));
        }
    }
}
