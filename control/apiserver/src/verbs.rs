//! The verbs on objects and collections, one file each.

use http::{Response, StatusCode};

use crate::api::Call;
use crate::body::Body;
use crate::error::ApiError;

pub(crate) mod admit;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod select;
pub(crate) mod update;
pub(crate) mod watch;

/// Answers a request about an object or a collection.
pub(crate) async fn dispatch(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if !call.resource.verbs.contains(&call.info.verb) {
        return Err(ApiError::MethodNotAllowed);
    }
    match call.info.verb {
        "get" => get(call).await,
        "list" => list::list(call).await,
        "watch" => watch::watch(call).await,
        "create" if call.target.name.is_none() => create::create(call).await,
        "update" if call.target.name.is_some() => update::replace(call, None).await,
        "patch" if call.target.name.is_some() => update::patch(call, None).await,
        "delete" => delete::delete(call).await,
        "deletecollection" => delete::delete_collection(call).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// The object that the path names.
pub(crate) async fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let entry = call.entry().await?;
    call.respond_stored(StatusCode::OK, &entry.value, entry.mod_revision)
}
