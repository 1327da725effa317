//! `componentstatuses`: deprecated since Kubernetes 1.19 and still asked for. There is one component to tell of, the
//! store: whoever gets an answer knows how the rest of the server is.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{Call, warn};
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::negotiate::{self, Form};
use crate::table;
use crate::verbs::list;

const STORE: &str = "store";
const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";

/// Answers a get or a list.
pub(crate) async fn answer(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let outcome = call.api.store.health().await;
    let message = outcome.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
    let store = status(STORE, outcome.is_ok(), &message);
    let mut response = match call.info.verb {
        "get" if call.target.name.as_deref() == Some(STORE) => call.respond(StatusCode::OK, store)?,
        "get" => return Err(call.not_found()),
        "list" => match negotiate::form(call.headers, &call.info.query)? {
            Form::Table(include) => {
                let table = table::table(call.resource, &[store], Timestamp::now(), include);
                body::json(StatusCode::OK, &table)
            }
            _ => call.respond_other(StatusCode::OK, &list::list_value(call, vec![store], json!({})))?,
        },
        _ => return Err(ApiError::MethodNotAllowed),
    };
    warn(&mut response, &[DEPRECATED.to_owned()]);
    Ok(response)
}

fn status(name: &str, healthy: bool, message: &str) -> Value {
    let condition =
        json!({ "type": "Healthy", "status": if healthy { "True" } else { "False" }, "message": message });
    json!({
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": { "name": name, "creationTimestamp": null },
        "conditions": [condition],
    })
}
