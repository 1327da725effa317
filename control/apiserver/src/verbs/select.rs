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
        if in_one_place && let Some(name) = fields.requires_exact("metadata.name") {
            prefix.push_str(name);
        }
        Ok(Self { prefix, labels, fields })
    }

    /// Whether every object under the prefix is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
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
    let refuse = |field: &str, detail: &str| Err(options_error(FieldError::forbidden(field, detail)));
    match (query.get("resourceVersionMatch"), version) {
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
        (None | Some("NotOlderThan"), Some(version)) if version > 0 => Ok(At::NotOlderThan(version)),
        (None | Some("NotOlderThan"), _) => Ok(At::Newest),
        (Some(other), _) => Err(options_error(FieldError::not_supported(
            "resourceVersionMatch",
            &json!(other),
            &["Exact", "NotOlderThan"],
        ))),
    }
}

/// Whether a watch begins with the objects there are and a bookmark after them (`sendInitialEvents`).
pub(crate) fn sends_initial_events(query: &Query) -> Result<bool, ApiError> {
    let matching = query.get("resourceVersionMatch");
    if query.get("sendInitialEvents").is_none() {
        return match matching {
            None => Ok(false),
            Some(_) => Err(options_error(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ))),
        };
    }
    match matching {
        Some("NotOlderThan") => query.flag("sendInitialEvents"),
        None => Err(options_error(FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ))),
        Some(other) => Err(options_error(FieldError::not_supported(
            "resourceVersionMatch",
            &json!(other),
            &["NotOlderThan"],
        ))),
    }
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
