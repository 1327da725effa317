//! How the lists and maps of each type merge, in the source of `k8s-openapi`: the calls in its `DeepMerge` impls.

use std::collections::BTreeMap;
use std::path::Path;

use crate::schemas::{name_in, visit};

/// How a list or a map merges.
pub(crate) enum Strategy {
    /// It is replaced as a whole.
    Atomic,
    /// It is a list of scalars that is a set.
    Set,
    /// It is a list of objects that these fields identify; names without capitals and underscores.
    Keys(Vec<String>),
    /// It is a map whose entries merge one by one.
    Granular,
}

/// The strategies by type (`io.k8s.api.core.v1.Pod`) and field (in small letters, without underscores).
pub(crate) type Merges = BTreeMap<String, BTreeMap<String, Strategy>>;

/// Reads every type's strategies.
pub(crate) fn read(folder: &Path) -> Merges {
    let mut all = Merges::new();
    visit(folder, &mut |_, text| {
        let Some(schema) = text.find("crate::schemars::json_schema!(") else { return };
        let Some(name) = name_in(&text[..schema]) else { return };
        let Some(at) = text.find("impl crate::DeepMerge for ") else { return };
        let body = &text[at..];
        let body = &body[..body.find("\n}").unwrap_or(body.len())];
        let calls = body.split("crate::merge_strategies::").skip(1);
        all.entry(name).or_default().extend(calls.filter_map(call));
    });
    assert!(
        all.get("io.k8s.api.core.v1.PodSpec").is_some_and(|fields| fields.contains_key("containers")),
        "k8s-openapi holds no merge strategies where they were"
    );
    all
}

/// A field and its strategy, of `list::map(&mut self.ports, other.ports, &[|lhs, rhs| lhs.port == rhs.port], …`.
fn call(text: &str) -> Option<(String, Strategy)> {
    let (function, rest) = text.split_once('(')?;
    let field = rest.trim_start().strip_prefix("&mut self.")?;
    let field = flat(&field[..field.find(',')?]);
    let strategy = match function {
        "list::set" => Strategy::Set,
        "list::map" => {
            let keys = &rest[rest.find("&[")?..rest.find("],")?];
            let keys = keys.split("lhs.").skip(1).map(|key| flat(key.split(' ').next().unwrap_or_default()));
            let keys: Vec<String> = keys.collect();
            // Keys that are deeper than the element are not of the API.
            if keys.iter().any(|key| key.contains('.')) { Strategy::Atomic } else { Strategy::Keys(keys) }
        }
        "map::granular" => Strategy::Granular,
        _ => Strategy::Atomic,
    };
    Some((field, strategy))
}

/// A name without what is written differently in Rust and in JSON.
pub(crate) fn flat(name: &str) -> String {
    name.trim_start_matches("r#").replace('_', "").to_lowercase()
}
