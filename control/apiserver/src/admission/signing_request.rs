//! Who asks for a certificate: the caller, whatever the object says (upstream's `certificates/strategy.go`).

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Attempt;
use crate::error::ApiError;

/// What the server says of who asks.
const FIELDS: [&str; 4] = ["username", "groups", "uid", "extra"];

/// Notes the caller in a new request; later nobody changes that.
pub(super) fn say_who_asks<'a>(
    attempt: &'a Attempt<'_>,
    request: &'a mut Value,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        // A request without a spec is refused for that.
        let Some(spec) = request["spec"].as_object_mut() else { return Ok(()) };
        let caller = json!({ "username": attempt.identity.user, "groups": attempt.identity.groups });
        let said = attempt.old.map_or(&caller, |old| &old["spec"]);
        for field in FIELDS {
            match &said[field] {
                Value::Null => drop(spec.remove(field)),
                value => drop(spec.insert(field.to_owned(), value.clone())),
            }
        }
        Ok(())
    })
}
