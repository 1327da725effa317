//! What the API answers when it refuses: one enum, and its `Status` object.

use std::time::Duration;

use fairlead_store::StoreError;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::apply::{ApplyError, Conflict};
use crate::body::{self, Body};
use crate::patch::PatchError;
use crate::protobuf::{self, ProtobufError};
use crate::resource::{FieldError, Resource, aggregate};
use crate::selector::SelectorError;

/// A refusal. Messages and reasons are upstream's, because clients branch on them
/// (apimachinery `pkg/api/errors/errors.go`).
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No certificate of our authority was presented.
    #[error("Unauthorized")]
    Unauthorized,
    /// The object or the state of the cluster forbids the call.
    #[error("{} {name:?} is forbidden: {message}", resource.group_resource())]
    Forbidden {
        /// The kind.
        resource: &'static Resource,
        /// The object.
        name: String,
        /// Why.
        message: String,
        /// What clients may branch on: `(reason, message, field)`.
        cause: Option<(&'static str, String, &'static str)>,
    },
    /// The path names nothing.
    #[error("the server could not find the requested resource")]
    UnknownPath,
    /// The object does not exist.
    #[error("{} {name:?} not found", resource.group_resource())]
    NotFound {
        /// The kind.
        resource: &'static Resource,
        /// The object.
        name: String,
    },
    /// The name is taken.
    #[error("{} {name:?} already exists", resource.group_resource())]
    AlreadyExists {
        /// The kind.
        resource: &'static Resource,
        /// The object.
        name: String,
    },
    /// The object is not in the state that the caller thinks.
    #[error("Operation cannot be fulfilled on {} {name:?}: {message}", resource.group_resource())]
    Conflict {
        /// The kind.
        resource: &'static Resource,
        /// The object.
        name: String,
        /// In which way.
        message: String,
    },
    /// Others own fields that a server-side apply would change.
    #[error("{message}")]
    ApplyConflict {
        /// All of them.
        message: String,
        /// Each one's owner and field.
        conflicts: Vec<(String, String)>,
    },
    /// The object's fields are wrong.
    #[error("{} {name:?} is invalid: {}", resource.group_kind(), aggregate(errors))]
    Invalid {
        /// The kind.
        resource: &'static Resource,
        /// The object.
        name: String,
        /// Which fields, and why.
        errors: Vec<FieldError>,
    },
    /// The parameters of a watch or list are wrong.
    #[error("{kind}.meta.k8s.io \"\" is invalid: {}", aggregate(errors))]
    InvalidOptions {
        /// `ListOptions` or `DeleteOptions`.
        kind: &'static str,
        /// Which fields, and why.
        errors: Vec<FieldError>,
    },
    /// A JSON patch does not fit the object.
    #[error("{0}")]
    Unpatchable(String),
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The kind does not have this verb.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// None of the media types in `Accept` can be made.
    #[error(
        "only the following media types are accepted: application/json, application/yaml, {}",
        protobuf::MEDIA_TYPE
    )]
    NotAcceptable,
    /// The body is in a format that is not read here.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The client took too long to send its request.
    #[error("the request's body did not arrive within {limit_secs} seconds")]
    Timeout {
        /// The limit.
        limit_secs: u64,
    },
    /// The body is over the limit.
    #[error("limit is {limit_bytes}")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The request asks for too much at once.
    #[error("{0}")]
    TooMuch(String),
    /// The history that a list or watch needs is gone.
    #[error("{0}")]
    Expired(String),
    /// The state of which a list has shown a part is gone.
    #[error(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list."
    )]
    ExpiredPage {
        /// Goes on at the same place in what there is now.
        continue_token: String,
    },
    /// A resource version that has not happened yet.
    #[error("Too large resource version: {requested}, current: {current}")]
    FutureResourceVersion {
        /// What was asked for.
        requested: u64,
        /// What there is.
        current: u64,
    },
    /// The caller asks more than it may, or than is done at a time.
    #[error("{message}")]
    TooManyRequests {
        /// Which.
        message: String,
        /// When to come back.
        retry_after_secs: u64,
    },
    /// A disruption budget does not let a pod go.
    #[error("Cannot evict pod as it would violate the pod's disruption budget.")]
    Disruption(String),
    /// The call lost too many races against other writers.
    #[error("{0}")]
    TryAgain(String),
    /// A part that is needed for the answer cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// The kubelet refused; its words.
    #[error("{message}")]
    Upstream {
        /// The code that it answered.
        code: StatusCode,
        /// Its words.
        message: String,
    },
    /// Our own fault.
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

/// How long a client waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a client waits before it asks a disruption budget again (upstream's eviction).
const DISRUPTION_RETRY_AFTER: Duration = Duration::from_secs(10);

impl ApiError {
    /// The HTTP code and the machine-readable reason.
    #[must_use]
    pub fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::UnknownPath | Self::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            Self::AlreadyExists { .. } => (StatusCode::CONFLICT, "AlreadyExists"),
            Self::Conflict { .. } | Self::ApplyConflict { .. } => (StatusCode::CONFLICT, "Conflict"),
            Self::Invalid { .. } | Self::InvalidOptions { .. } | Self::Unpatchable(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "Invalid")
            }
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "NotAcceptable"),
            Self::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
            Self::TooLarge { .. } | Self::TooMuch(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
            }
            Self::Expired(_) | Self::ExpiredPage { .. } => (StatusCode::GONE, "Expired"),
            Self::FutureResourceVersion { .. } | Self::Timeout { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "Timeout")
            }
            Self::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::Disruption(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::TryAgain(_) => (StatusCode::INTERNAL_SERVER_ERROR, "ServerTimeout"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Upstream { code, .. } => (*code, upstream_reason(*code)),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }

    /// The `Status` object.
    #[must_use]
    pub fn status(&self) -> Value {
        let (code, reason) = self.code();
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
            "code": code.as_u16(),
        });
        if let Self::ExpiredPage { continue_token } = self {
            status["metadata"]["continue"] = json!(continue_token);
        }
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status
    }

    /// The whole answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let (code, _) = self.code();
        if code == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a request failed");
        }
        let mut response = body::json(code, &self.status());
        if let Some(seconds) = self.retry_after_secs() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// When the same call may succeed.
    fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after_secs, .. } => Some(*retry_after_secs),
            Self::Disruption(_) => Some(DISRUPTION_RETRY_AFTER.as_secs()),
            Self::FutureResourceVersion { .. } | Self::TryAgain(_) | Self::Unavailable(_) => {
                Some(RETRY_AFTER.as_secs())
            }
            _ => None,
        }
    }

    fn details(&self) -> Option<Value> {
        let about = |resource: &Resource, kind: &str, name: &str| {
            let mut details = json!({ "name": name, "kind": kind });
            if !resource.group.is_empty() {
                details["group"] = json!(resource.group);
            }
            details
        };
        let causes = |errors: &[FieldError]| -> Value {
            let cause = |error: &FieldError| json!({ "reason": error.reason.cause(), "message": error.message, "field": error.field });
            errors.iter().map(cause).collect()
        };
        match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. } => Some(about(resource, resource.plural, name)),
            Self::Forbidden { resource, name, cause, .. } => {
                let mut details = about(resource, resource.plural, name);
                if let Some((reason, message, field)) = cause {
                    details["causes"] = json!([{ "reason": reason, "message": message, "field": field }]);
                }
                Some(details)
            }
            Self::Invalid { resource, name, errors } => {
                let mut details = about(resource, resource.kind, name);
                details["causes"] = causes(errors);
                Some(details)
            }
            Self::ApplyConflict { conflicts, .. } => {
                let cause = |(owner, field): &(String, String)| {
                    let message = format!("conflict with {owner}");
                    json!({ "reason": "FieldManagerConflict", "message": message, "field": field })
                };
                Some(json!({ "causes": conflicts.iter().map(cause).collect::<Value>() }))
            }
            Self::InvalidOptions { kind, errors } => {
                Some(json!({ "kind": kind, "group": "meta.k8s.io", "causes": causes(errors) }))
            }
            Self::UnknownPath | Self::MethodNotAllowed => Some(json!({})),
            Self::FutureResourceVersion { .. } => Some(json!({
                "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
                "retryAfterSeconds": RETRY_AFTER.as_secs(),
            })),
            Self::Disruption(reason) => Some(json!({
                "causes": [{ "reason": "DisruptionBudget", "message": reason }],
                "retryAfterSeconds": self.retry_after_secs(),
            })),
            Self::TooManyRequests { .. } | Self::TryAgain(_) | Self::Unavailable(_) => {
                Some(json!({ "retryAfterSeconds": self.retry_after_secs() }))
            }
            _ => None,
        }
    }
}

fn upstream_reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        _ => "InternalError",
    }
}

impl From<StoreError> for ApiError {
    /// For what is not about one object; preconditions are handled where the object is known.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { requested, compacted } => {
                Self::Expired(format!("too old resource version: {requested} ({compacted})"))
            }
            StoreError::FutureRevision { requested, current } => {
                Self::FutureResourceVersion { requested, current }
            }
            StoreError::Closed => Self::Unavailable("the server is shutting down".to_owned()),
            error @ (StoreError::Unavailable { .. } | StoreError::Full { .. }) => {
                Self::Unavailable(chain_of(&error))
            }
            StoreError::Exists { .. } | StoreError::NotFound { .. } | StoreError::Conflict { .. } => {
                Self::TryAgain("the object was changed by another writer, please try again".to_owned())
            }
            error => Self::Internal(chain_of(&error)),
        }
    }
}

impl From<SelectorError> for ApiError {
    fn from(error: SelectorError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl From<ProtobufError> for ApiError {
    /// Of an object that was to be written; what cannot be read is the client's fault and said where it is read.
    fn from(error: ProtobufError) -> Self {
        Self::Internal(format!("the object cannot be written as protobuf: {error}"))
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::Conflicts(conflicts) => {
                let row = |conflict: Conflict| (conflict.owner, conflict.field.to_string());
                Self::ApplyConflict { message, conflicts: conflicts.into_iter().map(row).collect() }
            }
            ApplyError::List(_) => Self::BadRequest(message),
        }
    }
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let message = error.to_string();
        match error {
            PatchError::Unsupported { .. } => Self::UnsupportedMediaType(message),
            PatchError::Malformed(_) => Self::BadRequest(message),
            PatchError::TooManyOperations { .. } => Self::TooMuch(message),
            PatchError::Inapplicable(_) => Self::Unpatchable(message),
        }
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
