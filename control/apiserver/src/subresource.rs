//! The subresources, one file for each that is more than the object in another place.

use http::{Response, StatusCode};

use crate::api::Call;
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::verbs::{self, delete, update};

mod binding;
mod log;
mod scale;

/// Answers a request about a subresource that the kind has.
pub(crate) async fn dispatch(call: &Call<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    match (name, call.info.verb) {
        ("status", "get") => verbs::get(call).await,
        ("status" | "finalize", "update") => update::replace(call, Some(name)).await,
        ("status", "patch") => update::patch(call, Some(name)).await,
        ("scale", "get") => scale::get(call).await,
        ("scale", "update") => scale::replace(call).await,
        ("scale", "patch") => scale::patch(call).await,
        ("binding", "create") => binding::create(call).await,
        ("eviction", "create") => evict(call).await,
        ("log", "get") => log::get(call).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// Deletes a pod with the options inside an `Eviction`.
async fn evict(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let eviction = body::parse(call.headers, &call.body)?;
    let options = delete::Options::from_value(call, &eviction["deleteOptions"])?;
    delete::delete_one(call, &options).await?;
    call.respond_other(StatusCode::CREATED, &delete::success(None))
}
