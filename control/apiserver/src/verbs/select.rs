//! The parameters of lists and watches: selectors and resource versions.

use fairlead_store::Revision;
use serde_json::{Value, json};

use crate::api::{Call, prefix};
use crate::error::ApiError;
use crate::request::Query;
use crate::resource::FieldError;
use crate::selector::{FieldSelector, LabelSelector};

/// Which objects.
#[derive(Debug)]
pub(crate) struct Selection {
    /// What the keys begin with.
    pub(crate) prefix: String,
    labels: LabelSelector,
    fields: FieldSelector,
    one_key: bool,
}

impl Selection {
    pub(crate) fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        let query = &call.info.query;
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
        let text = query.get("fieldSelector").unwrap_or_default();
        let fields = FieldSelector::parse(call.resource, text)?;
        let mut prefix = prefix(call.resource, call.target.namespace.as_deref());
        // One object: its key is the prefix, and the selector leaves out longer names.
        let in_one_place = call.target.namespace.is_some() || !call.resource.namespaced;
        let mut one_key = false;
        if in_one_place && let Some(name) = fields.requires_exact("metadata.name") {
            prefix.push_str(name);
            one_key = fields.len() == 1 && labels.is_empty();
        }
        Ok(Self { prefix, labels, fields, one_key })
    }

    /// Whether every object under the prefix is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object whose key is the prefix is selected, and nothing else: no object need be looked into.
    pub(crate) fn is_one_key(&self) -> bool {
        self.one_key
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// Which state a list shows, or a watch begins from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest.
    Newest,
    /// One that is not older than this.
    NotOlderThan(Revision),
    /// Exactly this.
    Exactly(Revision),
}

/// `resourceVersion` and `resourceVersionMatch` of a list (apimachinery `ValidateListOptions`).
pub(crate) fn list_at(query: &Query) -> Result<At, ApiError> {
    let version = revision(query)?;
    if query.get("continue").is_some() && version.is_some_and(|version| version > 0) {
        let message = "specifying resource version is not allowed when using continue";
        return Err(ApiError::BadRequest(message.to_owned()));
    }
    let limited = query.number("limit")?.is_some_and(|limit| limit > 0);
    let refuse = |field: &str, detail: &str| Err(options_error(FieldError::forbidden(field, detail)));
    match (query.get("resourceVersionMatch"), version) {
        _ if query.has("sendInitialEvents") => {
            refuse("sendInitialEvents", "sendInitialEvents is forbidden for list")
        }
        (Some(_), _) if query.get("continue").is_some() => {
            refuse("resourceVersionMatch", "resourceVersionMatch is forbidden with continue")
        }
        (Some(_), None) => refuse(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (Some("Exact"), Some(0)) => refuse(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (Some("Exact"), Some(version)) => Ok(At::Exactly(version)),
        // Pages have always been of the version that is asked for.
        (None, Some(version)) if version > 0 && limited => Ok(At::Exactly(version)),
        (None | Some("NotOlderThan"), Some(version)) if version > 0 => Ok(At::NotOlderThan(version)),
        (None | Some("NotOlderThan"), _) => Ok(At::Newest),
        (Some(other), _) => Err(options_error(FieldError::not_supported(
            "resourceVersionMatch",
            &json!(other),
            &["Exact", "NotOlderThan"],
        ))),
    }
}

/// Whether a watch is to begin with the objects there are and a bookmark after them, or is not to (`sendInitialEvents`).
pub(crate) fn initial_events(query: &Query) -> Result<Option<bool>, ApiError> {
    let forbidden = |detail: &str| FieldError::forbidden("resourceVersionMatch", detail);
    let matching = query.get("resourceVersionMatch");
    let wanted = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
    let mut errors = Vec::new();
    if wanted.is_some() && matching != Some("NotOlderThan") {
        errors.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if let Some(matching) = matching {
        if wanted.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(forbidden(detail));
        }
        if matching != "NotOlderThan" {
            let supported = &["NotOlderThan"];
            errors.push(FieldError::not_supported("resourceVersionMatch", &json!(matching), supported));
        }
        if query.get("continue").is_some() {
            errors.push(forbidden("resourceVersionMatch is forbidden with continue"));
        }
    }
    if errors.is_empty() { Ok(wanted) } else { Err(ApiError::InvalidOptions { kind: "ListOptions", errors }) }
}

/// `resourceVersion`, if it is given.
pub(crate) fn revision(query: &Query) -> Result<Option<Revision>, ApiError> {
    let invalid = |text: &str| {
        let detail = "must be a resource version that this server gave";
        options_error(FieldError::invalid("resourceVersion", &json!(text), detail))
    };
    query.get("resourceVersion").map(|text| text.parse().map_err(|_| invalid(text))).transpose()
}

pub(crate) fn options_error(error: FieldError) -> ApiError {
    ApiError::InvalidOptions { kind: "ListOptions", errors: vec![error] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(&format!("/?{text}").parse().expect("a path")).expect("a query")
    }

    /// The matrix of `resourceVersion` and `resourceVersionMatch` in upstream's documentation of the API.
    #[test]
    fn a_list_shows_the_state_that_its_parameters_say() {
        let rows = [
            ("", Ok(At::Newest)),
            ("resourceVersion=0", Ok(At::Newest)),
            ("resourceVersion=7", Ok(At::NotOlderThan(7))),
            ("resourceVersion=7&limit=5", Ok(At::Exactly(7))),
            ("resourceVersion=0&limit=5", Ok(At::Newest)),
            ("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", Ok(At::NotOlderThan(7))),
            ("resourceVersion=7&resourceVersionMatch=Exact", Ok(At::Exactly(7))),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", Ok(At::Newest)),
            ("resourceVersion=0&resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=NotOlderThan", Err(422)),
            ("resourceVersion=7&resourceVersionMatch=Older", Err(422)),
            ("resourceVersion=x", Err(422)),
            ("continue=x&resourceVersion=7", Err(400)),
            ("continue=x&resourceVersion=0", Ok(At::Newest)),
            ("continue=x&resourceVersion=0&resourceVersionMatch=NotOlderThan", Err(422)),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", Err(422)),
            ("resourceVersion=7&limit=-1", Ok(At::NotOlderThan(7))),
            ("limit=x", Err(400)),
        ];
        for (text, expected) in rows {
            let found = list_at(&query(text)).map_err(|error| error.code().0.as_u16());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_watch_begins_with_what_there_is_only_on_request() {
        let rows = [
            ("", Ok(None)),
            ("resourceVersion=7", Ok(None)),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", Ok(Some(true))),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", Ok(Some(false))),
            ("sendInitialEvents=true", Err(1)),
            ("resourceVersionMatch=NotOlderThan", Err(1)),
            ("resourceVersionMatch=Exact&sendInitialEvents=true", Err(2)),
            ("resourceVersionMatch=Exact&continue=x", Err(3)),
        ];
        for (text, expected) in rows {
            let found = initial_events(&query(text)).map_err(|error| match error {
                ApiError::InvalidOptions { errors, .. } => errors.len(),
                other => panic!("{other}"),
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
