//! The subresources, one file for each that is more than the object in another place.

use http::Response;

use crate::api::Call;
use crate::body::Body;
use crate::error::ApiError;
use crate::verbs::{self, update};

mod binding;
mod eviction;
mod log;
mod scale;

pub(crate) use binding::create_by_name as bind;

/// The subresources that are the object itself, of which a write changes a part.
const OBJECT_FORMED: &[&str] = &["status", "approval", "ephemeralcontainers", "resize"];

/// Answers a request about a subresource that the kind has.
pub(crate) async fn dispatch(call: &Call<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    match (name, call.info.verb) {
        (name, "get") if OBJECT_FORMED.contains(&name) => verbs::get(call).await,
        (name, "patch") if OBJECT_FORMED.contains(&name) => update::patch(call, Some(name)).await,
        (name, "update") if OBJECT_FORMED.contains(&name) || name == "finalize" => {
            update::replace(call, Some(name)).await
        }
        ("scale", "get") => scale::get(call).await,
        ("scale", "update") => scale::replace(call).await,
        ("scale", "patch") => scale::patch(call).await,
        ("binding", "create") => binding::create(call).await,
        ("eviction", "create") => eviction::create(call).await,
        ("log", "get") => log::get(call).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}
