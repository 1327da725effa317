//! Strategic merge patch: a merge patch that knows which lists are maps or sets, and has directives.
//!
//! | directive | where | means |
//! |---|---|---|
//! | `$patch: delete` | map, element of a keyed list | remove it |
//! | `$patch: replace` | map, element of any list | replace the whole, the rest of the patch is the value |
//! | `$patch: merge` | map | merge, as without it |
//! | `$retainKeys: [a, b]` | map | drop the keys that are not listed |
//! | `$deleteFromPrimitiveList/<list>: [a]` | map | remove the values from the set |
//! | `$setElementOrder/<list>: [..]` | map | the order of the merged list |
//! | null | map | remove the key |

use serde_json::{Map, Value};

use super::PatchError;
use crate::resource::merge::list_merge;
use crate::resource::{ListMerge, Resource, path};

mod order;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// The object that the patch makes of the original.
pub(super) fn merge(resource: &Resource, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Malformed("a strategic merge patch must be a JSON object".to_owned()));
    };
    Merger { resource }.map(original, patch, "").map(Value::Object)
}

struct Merger<'a> {
    resource: &'a Resource,
}

impl Merger<'_> {
    fn map(&self, original: &Fields, patch: &Fields, at: &str) -> Result<Fields, PatchError> {
        match patch.get(PATCH) {
            None => {}
            Some(Value::String(directive)) => match directive.as_str() {
                "merge" => {}
                "delete" => return Ok(Fields::new()),
                "replace" => return Ok(without_directives(patch)),
                other => return Err(unknown_directive(other, at)),
            },
            Some(other) => return Err(unknown_directive(&other.to_string(), at)),
        }
        let mut merged = original.clone();
        retain_keys(&mut merged, patch, at)?;
        for (key, change) in patch {
            if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
                delete_from_list(&mut merged, list, change, at)?;
            }
        }
        for (key, change) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
            let here = path::join(at, key);
            match self.value(merged.get(key), change, &here)? {
                Some(value) => drop(merged.insert(key.clone(), value)),
                None => drop(merged.remove(key)),
            }
        }
        for (key, wanted) in patch {
            if let Some(list) = key.strip_prefix(ELEMENT_ORDER) {
                self.reorder(&mut merged, original, list, wanted, at)?;
            }
        }
        Ok(merged)
    }

    /// The merged value of a field; `None` removes it.
    fn value(&self, old: Option<&Value>, change: &Value, at: &str) -> Result<Option<Value>, PatchError> {
        match (old, change) {
            (_, Value::Null) => Ok(None),
            (Some(Value::Object(old)), Value::Object(change)) => {
                let deleted = change.get(PATCH).is_some_and(|directive| directive == "delete");
                if deleted { Ok(None) } else { Ok(Some(Value::Object(self.map(old, change, at)?))) }
            }
            (_, Value::Object(change)) => {
                let deleted = change.get(PATCH).is_some_and(|directive| directive == "delete");
                let fresh = self.map(&Fields::new(), change, at)?;
                if deleted { Ok(None) } else { Ok(Some(Value::Object(fresh))) }
            }
            (old, Value::Array(change)) => {
                let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                self.list(old, change, at).map(|list| Some(Value::Array(list)))
            }
            (_, scalar) => Ok(Some(scalar.clone())),
        }
    }

    fn list(&self, old: &[Value], change: &[Value], at: &str) -> Result<Vec<Value>, PatchError> {
        let replaces = |item: &Value| item.get(PATCH).is_some_and(|directive| directive == "replace");
        if change.iter().any(replaces) {
            return Ok(change.iter().filter(|item| item.get(PATCH).is_none()).map(plain).collect());
        }
        match list_merge(self.resource, at) {
            ListMerge::Atomic => Ok(change.iter().map(plain).collect()),
            ListMerge::Set => {
                let mut merged = old.to_vec();
                for value in change {
                    if !merged.contains(value) {
                        merged.push(value.clone());
                    }
                }
                order::sort(&mut merged, old, change, None);
                Ok(merged)
            }
            ListMerge::ByKey(key) | ListMerge::ByKeyRetaining(key) => self.keyed(old, change, key, at),
        }
    }

    fn keyed(&self, old: &[Value], change: &[Value], key: &str, at: &str) -> Result<Vec<Value>, PatchError> {
        let mut merged = old.to_vec();
        for item in change {
            let Value::Object(fields) = item else {
                return Err(PatchError::Malformed(format!("{at}: elements must be objects, not {item}")));
            };
            let Some(id) = fields.get(key).filter(|id| !id.is_null()) else {
                let problem = format!("map: {item} does not contain declared merge key: {key}");
                return Err(PatchError::Malformed(format!("{at}: {problem}")));
            };
            let place = merged.iter().position(|one| one.get(key) == Some(id));
            let deleted = fields.get(PATCH).is_some_and(|directive| directive == "delete");
            match place {
                _ if deleted => merged.retain(|one| one.get(key) != Some(id)),
                Some(place) => {
                    let found = merged[place].as_object().cloned().unwrap_or_default();
                    merged[place] = Value::Object(self.map(&found, fields, at)?);
                }
                None => merged.push(Value::Object(self.map(&Fields::new(), fields, at)?)),
            }
        }
        // As upstream does even without the directive: the patch's order holds, and what it adds comes first.
        order::sort(&mut merged, old, change, Some(key));
        Ok(merged)
    }

    fn reorder(
        &self,
        merged: &mut Fields,
        original: &Fields,
        list: &str,
        wanted: &Value,
        at: &str,
    ) -> Result<(), PatchError> {
        let here = path::join(at, list);
        let Value::Array(wanted) = wanted else {
            return Err(PatchError::Malformed(format!("{here}: $setElementOrder must be a list")));
        };
        let key = match list_merge(self.resource, &here) {
            ListMerge::Atomic => return Ok(()),
            ListMerge::Set => None,
            ListMerge::ByKey(key) | ListMerge::ByKeyRetaining(key) => Some(key),
        };
        let before = original.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(Value::Array(items)) = merged.get_mut(list) {
            order::sort(items, before, wanted, key);
        }
        Ok(())
    }
}

fn retain_keys(merged: &mut Fields, patch: &Fields, at: &str) -> Result<(), PatchError> {
    let Some(kept) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(kept) = kept else {
        return Err(PatchError::Malformed(format!("{at}: {RETAIN_KEYS} must be a list of names")));
    };
    let listed = |key: &String| kept.iter().any(|one| one == key);
    if let Some(missing) = patch.iter().find(|(key, v)| !key.starts_with('$') && !v.is_null() && !listed(key))
    {
        let problem = format!("{RETAIN_KEYS} must list every key of the patch, but not {:?}", missing.0);
        return Err(PatchError::Malformed(format!("{at}: {problem}")));
    }
    merged.retain(|key, _| listed(key));
    Ok(())
}

fn delete_from_list(merged: &mut Fields, list: &str, gone: &Value, at: &str) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        let here = path::join(at, list);
        return Err(PatchError::Malformed(format!("{here}: $deleteFromPrimitiveList must be a list")));
    };
    if let Some(Value::Array(items)) = merged.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// The value without directives, at any depth.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        scalar => scalar.clone(),
    }
}

fn without_directives(fields: &Fields) -> Fields {
    let is_directive = |key: &str| {
        key == PATCH
            || key == RETAIN_KEYS
            || key.starts_with(DELETE_FROM_LIST)
            || key.starts_with(ELEMENT_ORDER)
    };
    let kept = fields.iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
    kept.map(|(key, value)| (key.clone(), plain(value))).collect()
}

fn unknown_directive(directive: &str, at: &str) -> PatchError {
    PatchError::Malformed(format!("{at}: unknown $patch type {directive:?}; use merge, replace or delete"))
}

#[cfg(test)]
mod tests;
