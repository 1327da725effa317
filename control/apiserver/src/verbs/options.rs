//! What the parameters of a write may say (apimachinery `meta/v1/validation`): a row for each, checked before anything
//! else is done. Those of lists and watches depend on each other and are in [`super::select`].

use serde_json::json;

use crate::apply::managers;
use crate::error::ApiError;
use crate::request::{Query, RequestInfo};
use crate::resource::FieldError;

/// A parameter of some verbs, and what is wrong with it.
struct Row {
    parameter: &'static str,
    verbs: &'static [&'static str],
    problem: fn(&'static str, &Query) -> Option<FieldError>,
}

const CHANGES: &[&str] = &["create", "update", "patch"];
const WRITES: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// In the order in which upstream tells of them.
const ROWS: &[Row] = &[
    Row { parameter: "fieldManager", verbs: CHANGES, problem: manager },
    Row { parameter: "dryRun", verbs: WRITES, problem: |name, query| dry_run(name, &query.all(name)) },
    Row { parameter: "fieldValidation", verbs: CHANGES, problem: field_validation },
];

/// Refuses a request with all that is wrong with its parameters.
pub(crate) fn check(info: &RequestInfo) -> Result<(), ApiError> {
    let rows = ROWS.iter().filter(|row| row.verbs.contains(&info.verb));
    let errors: Vec<FieldError> = rows.filter_map(|row| (row.problem)(row.parameter, &info.query)).collect();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::InvalidOptions { kind: kind(info.verb), errors }) }
}

/// The parameters of a write are wrong.
pub(crate) fn refused(verb: &str, error: FieldError) -> ApiError {
    ApiError::InvalidOptions { kind: kind(verb), errors: vec![error] }
}

fn kind(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "patch" => "PatchOptions",
        "update" => "UpdateOptions",
        _ => "DeleteOptions",
    }
}

fn manager(parameter: &'static str, query: &Query) -> Option<FieldError> {
    let name = query.get(parameter)?;
    let problem = if name.len() > managers::NAME_LEN_MAX {
        "may not be more than 128 bytes"
    } else if name.contains(char::is_control) {
        "should only contain printable characters"
    } else {
        return None;
    };
    Some(FieldError::invalid(parameter, &json!(name), problem))
}

/// What is wrong with a dry run of this sort.
pub(crate) fn dry_run(field: &str, values: &[&str]) -> Option<FieldError> {
    let is_known = values.iter().all(|value| *value == "All");
    (!is_known).then(|| FieldError::not_supported(field, &json!(values), &["All"]))
}

fn field_validation(parameter: &'static str, query: &Query) -> Option<FieldError> {
    const SUPPORTED: &[&str] = &["Ignore", "Strict", "Warn"];
    let value = query.get(parameter).filter(|value| !SUPPORTED.contains(value))?;
    Some(FieldError::not_supported(parameter, &json!(value), SUPPORTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_parameters_is_told_as_upstream_tells_it() {
        // Method, query, what is said.
        let long = "m".repeat(129);
        let rows = [
            ("POST", "", "".to_owned()),
            ("POST", "dryRun=All&fieldManager=me&fieldValidation=Warn", String::new()),
            ("POST", "dryRun=", String::new()),
            (
                "POST",
                "dryRun=Foo",
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Foo"]: supported values: "All""#
                    .to_owned(),
            ),
            (
                "PUT",
                "dryRun=All&dryRun=all",
                r#"UpdateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["All","all"]: supported values: "All""#
                    .to_owned(),
            ),
            (
                "DELETE",
                "dryRun=1&fieldValidation=Foo",
                r#"DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["1"]: supported values: "All""#
                    .to_owned(),
            ),
            (
                "PATCH",
                "fieldValidation=Foo",
                concat!(
                    r#"PatchOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Foo": "#,
                    r#"supported values: "Ignore", "Strict", "Warn""#
                )
                .to_owned(),
            ),
            (
                "POST",
                &format!("fieldManager={long}&fieldValidation=Foo"),
                format!(
                    concat!(
                        r#"CreateOptions.meta.k8s.io "" is invalid: [fieldManager: Invalid value: "{}": "#,
                        r#"may not be more than 128 bytes, fieldValidation: Unsupported value: "Foo": "#,
                        r#"supported values: "Ignore", "Strict", "Warn"]"#
                    ),
                    long
                ),
            ),
        ];
        for (method, query, expected) in rows {
            let uri = format!("/api/v1/namespaces/a/pods/b?{query}");
            let request = http::Request::builder().method(method).uri(&uri).body(()).unwrap();
            let found = check(&RequestInfo::parse(&request.into_parts().0).unwrap());
            assert_eq!(found.map_or_else(|error| error.to_string(), |()| String::new()), expected, "{uri}");
        }
    }
}
