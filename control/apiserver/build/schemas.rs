//! The JSON schemas in the source of `k8s-openapi`: the arguments of its `json_schema!` calls, which are JSON but for
//! references to other types.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// What a reference to a type begins with.
pub(crate) const REFERENCE: &str = "#/components/schemas/";

/// Every type by its name, such as `io.k8s.api.core.v1.Pod`.
pub(crate) struct Schemas(pub(crate) BTreeMap<String, Value>);

impl Schemas {
    pub(crate) fn read(folder: &Path) -> Self {
        let mut all = BTreeMap::new();
        visit(folder, &mut |path, text| {
            let Some(at) = text.find("crate::schemars::json_schema!(") else { return };
            let Some(name) = name_in(&text[..at]) else { return };
            let mut reader = Reader { text: &text[at + "crate::schemars::json_schema!(".len()..] };
            let schema =
                reader.value().unwrap_or_else(|| panic!("{}: near {:.60}", path.display(), reader.text));
            all.insert(name, schema);
        });
        assert!(all.contains_key("io.k8s.api.core.v1.Pod"), "k8s-openapi holds no schemas where they were");
        Self(all)
    }

    /// The type of a name that may be written in other capitals.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, &Value)> {
        if let Some((name, schema)) = self.0.get_key_value(name) {
            return Some((name, schema));
        }
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(name, schema)| (name.as_str(), schema))
    }
}

/// Hands every Rust file below a folder to `each`.
pub(crate) fn visit(folder: &Path, each: &mut impl FnMut(&Path, &str)) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            each(&path, &text);
        }
    }
}

/// The text in `"io.k8s...".into()` of `fn schema_name`.
pub(crate) fn name_in(text: &str) -> Option<String> {
    let body = &text[text.rfind("fn schema_name()")?..];
    let name = &body[body.find('"')? + 1..];
    Some(name[..name.find('"')?].to_owned())
}

/// What is left to read of an argument.
struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    fn value(&mut self) -> Option<Value> {
        self.space();
        match self.text.chars().next()? {
            '"' => self.string().map(Value::String),
            '{' => self.object(),
            '[' => self.array(),
            '(' => {
                self.eat("(")?;
                let value = if self.eat("{").is_some() { self.described() } else { self.reference() }?;
                self.eat(")")?;
                Some(value)
            }
            't' => self.eat("true").map(|()| json!(true)),
            'f' => self.eat("false").map(|()| json!(false)),
            _ => self.reference(),
        }
    }

    fn object(&mut self) -> Option<Value> {
        self.eat("{")?;
        let mut entries = Map::new();
        while self.eat("}").is_none() {
            let key = self.string()?;
            self.eat(":")?;
            entries.insert(key, self.value()?);
            let _ = self.eat(",");
        }
        Some(Value::Object(entries))
    }

    fn array(&mut self) -> Option<Value> {
        self.eat("[")?;
        let mut items = Vec::new();
        while self.eat("]").is_none() {
            items.push(self.value()?);
            let _ = self.eat(",");
        }
        Some(Value::Array(items))
    }

    /// `__gen.subschema_for::<crate::path::Type>()`
    fn reference(&mut self) -> Option<Value> {
        self.eat("__gen.subschema_for::<crate::")?;
        let end = self.text.find('>')?;
        let name = format!("io.k8s.{}", self.text[..end].replace("::", ".").replace('_', "-"));
        self.text = &self.text[end..];
        self.eat(">()")?;
        Some(json!({ "$ref": format!("{REFERENCE}{name}") }))
    }

    /// A reference to which a description is added; the brace is read.
    fn described(&mut self) -> Option<Value> {
        self.eat("let mut schema_obj =")?;
        let reference = self.reference()?;
        self.eat(";")?;
        self.eat("schema_obj.ensure_object().insert(\"description\".into(),")?;
        let description = self.string()?;
        self.eat(".into());")?;
        self.eat("schema_obj")?;
        self.eat("}")?;
        Some(json!({ "allOf": [reference], "description": description }))
    }

    fn string(&mut self) -> Option<String> {
        self.eat("\"")?;
        let mut out = String::new();
        let mut chars = self.text.char_indices();
        while let Some((at, letter)) = chars.next() {
            match letter {
                '"' => {
                    self.text = &self.text[at + 1..];
                    return Some(out);
                }
                '\\' => out.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    letter @ ('"' | '\\' | '\'') => letter,
                    _ => return None,
                }),
                letter => out.push(letter),
            }
        }
        None
    }

    fn eat(&mut self, token: &str) -> Option<()> {
        self.space();
        self.text = self.text.strip_prefix(token)?;
        Some(())
    }

    fn space(&mut self) {
        self.text = self.text.trim_start();
    }
}
