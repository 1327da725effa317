//! The protobuf messages in the source of `k8s-pb`: its structs and their `#[prost(...)]` attributes.

use std::collections::BTreeMap;
use std::path::Path;

use crate::schemas::visit;

/// A message.
#[derive(Clone, Default)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
    /// `apiVersion` and `kind`, if it is an object of its own.
    pub(crate) kind: Option<(String, String)>,
}

/// A field of a message.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// In snake case: the capitals of the JSON name are lost.
    pub(crate) name: String,
    /// What the attribute says it is: `string`, `int32`, `message`, or of a map's values.
    pub(crate) scalar: String,
    pub(crate) label: Label,
    /// The message's name, for messages.
    pub(crate) message: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    One,
    Repeated,
    Map,
}

/// Every message by a name like those of the schemas, such as `io.k8s.api.core.v1.HttpGetAction`.
pub(crate) fn read(folder: &Path) -> BTreeMap<String, Message> {
    let mut all = BTreeMap::new();
    visit(folder, &mut |path, text| {
        let relative = path.strip_prefix(folder).expect("it is below").parent().expect("it is a file");
        let module: Vec<&str> = relative.iter().filter_map(|part| part.to_str()).collect();
        read_file(&module, text, &mut all);
    });
    assert!(all.contains_key("io.k8s.api.core.v1.Pod"), "k8s-pb holds no messages where they were");
    for (former, stable) in GRADUATED {
        graduate(&mut all, former, stable);
    }
    all
}

/// Versions that have become stable with the messages that they had, after `k8s-pb` was made.
const GRADUATED: &[(&str, &str)] =
    &[("io.k8s.api.admissionregistration.v1beta1.", "io.k8s.api.admissionregistration.v1.")];

/// Gives a stable version what only the former one has.
fn graduate(all: &mut BTreeMap<String, Message>, former: &str, stable: &str) {
    let version = |name: &str| name.trim_end_matches('.').rsplit('.').next().unwrap_or_default().to_owned();
    let (was, is) = (version(former), version(stable));
    let inside = all.range(former.to_owned()..).take_while(|(name, _)| name.starts_with(former));
    let missing: Vec<(String, Message)> = inside
        .map(|(name, message)| (name.replace(former, stable), message))
        .filter(|(name, _)| !all.contains_key(name))
        .map(|(name, message)| {
            let mut message = message.clone();
            for field in &mut message.fields {
                field.message = field.message.take().map(|name| name.replace(former, stable));
            }
            message.kind = message.kind.map(|(version, kind)| (version.replace(&was, &is), kind));
            (name, message)
        })
        .collect();
    all.extend(missing);
}

fn read_file(module: &[&str], text: &str, all: &mut BTreeMap<String, Message>) {
    let package = format!("io.k8s.{}", module.join(".").replace('_', "-"));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let mut current = None;
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("pub struct ") {
            let name = name.split([' ', '{']).next().unwrap_or_default();
            current = Some(format!("{package}.{name}"));
            all.insert(format!("{package}.{name}"), Message::default());
        } else if let Some(attribute) = line.strip_prefix("#[prost(") {
            let mut declaration = String::new();
            while !declaration.ends_with(',') || opens(&declaration) > 0 {
                declaration.push_str(lines.next().expect("a field follows its attribute"));
            }
            let message = current.as_ref().and_then(|name| all.get_mut(name)).expect("a struct is open");
            message.fields.push(field(module, attribute, &declaration));
        } else if let Some(name) = line.strip_prefix("impl crate::Resource for ") {
            let name = format!("{package}.{}", name.trim_end_matches([' ', '{']));
            let mut constant = |wanted: &str| {
                let line = lines.find(|line| line.starts_with(wanted)).expect("resources say what they are");
                line.split('"').nth(1).expect("a text").to_owned()
            };
            let kind = (constant("const API_VERSION"), constant("const KIND"));
            all.get_mut(&name).expect("a struct comes before its impls").kind = Some(kind);
        }
    }
}

fn opens(text: &str) -> usize {
    text.matches('<').count() - text.matches('>').count()
}

/// Of `string, optional, tag = "1")]` and `pub name: Type,`.
fn field(module: &[&str], attribute: &str, declaration: &str) -> Field {
    let attribute = attribute.trim_end_matches(")]");
    let tag = attribute.rsplit("tag = \"").next().expect("a tag").trim_end_matches('"');
    let (name, of) = declaration.strip_prefix("pub ").and_then(|text| text.split_once(':')).expect("a field");
    let (label, scalar) = if let Some(map) = attribute.strip_prefix("btree_map = \"string, ") {
        (Label::Map, map.split('"').next().unwrap_or_default())
    } else {
        let scalar = attribute.split([',', ' ']).next().unwrap_or_default();
        (if attribute.contains(", repeated") { Label::Repeated } else { Label::One }, scalar)
    };
    Field {
        number: tag.parse().expect("a number"),
        name: name.trim_start_matches("r#").to_owned(),
        scalar: scalar.to_owned(),
        label,
        message: (scalar == "message").then(|| resolve(module, of)),
    }
}

/// The message in a type like `Option<super::super::core::v1::Pod>`.
fn resolve(module: &[&str], of: &str) -> String {
    let mut path = of.replace(char::is_whitespace, "");
    for wrapper in [
        "::core::option::Option<",
        "::prost::alloc::vec::Vec<",
        "::prost::alloc::boxed::Box<",
        "::prost::alloc::collections::BTreeMap<",
        "::prost::alloc::string::String,",
        ">",
        ",",
    ] {
        path = path.replace(wrapper, "");
    }
    let mut module = module.to_vec();
    let mut rest = path.as_str();
    while let Some(outer) = rest.strip_prefix("super::") {
        module.pop();
        rest = outer;
    }
    let mut name: Vec<&str> = std::iter::once("io.k8s").collect();
    name.extend(module);
    name.extend(rest.split("::"));
    name.join(".").replace('_', "-")
}
