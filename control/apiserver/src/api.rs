//! The request chain: what is asked → who asks → may they → the verb.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fairlead_store::{Entry, Revision, Store, StoreError};
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::ServiceAddresses;
use crate::admission::Admission;
use crate::authn::{self, Identity};
use crate::body::{self, Body};
use crate::commit::Written;
use crate::error::ApiError;
use crate::kubelet::Kubelets;
use crate::limit::Limiter;
use crate::negotiate::{self, Form};
use crate::object::Owners;
use crate::protobuf;
use crate::recent::{RecentlyDecoded, RecentlySent};
use crate::request::{RequestInfo, Target};
use crate::resource::{Resource, find};
use crate::{compress, discovery, object, openapi, review, subresource, table, verbs};

/// What every request needs.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) addresses: ServiceAddresses,
    pub(crate) admission: Admission,
    /// What pods trust the server by, as PEM.
    pub(crate) root_ca: String,
    pub(crate) kubelets: Kubelets,
    /// Ends the watches and logs that are being streamed.
    pub(crate) draining: CancellationToken,
    /// For watches with selectors.
    pub(crate) decoded: RecentlyDecoded,
    /// For all watches.
    pub(crate) sent: RecentlySent,
    /// Writes run here, because they must end even when their client goes away in the middle: what is in the store
    /// and what is in memory would differ.
    pub(crate) writes: TaskTracker,
    pub(crate) limiter: Limiter,
}

/// One request about an object or a collection.
pub(crate) struct Call<'r> {
    pub(crate) api: &'r Arc<Api>,
    pub(crate) resource: &'static Resource,
    pub(crate) info: &'r RequestInfo,
    pub(crate) target: &'r Target,
    /// Who asks.
    pub(crate) identity: &'r Identity,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) body: Bytes,
}

/// Answers a request; every failure becomes a `Status`.
pub(crate) async fn serve<B>(api: Arc<Api>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let takes_gzip = compress::is_wanted(request.headers());
    let response = handle(&api, request).await.unwrap_or_else(ApiError::into_response);
    if takes_gzip { compress::large(response).await } else { response }
}

async fn handle<B>(api: &Arc<Api>, request: Request<B>) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let info = RequestInfo::parse(&parts)?;
    let identity = parts.extensions.get::<Identity>();
    authn::require(identity, &info)?;
    authn::authorize(identity, &info)?;
    let identity = identity.cloned();
    let permit = api.limiter.admit(identity.as_ref(), &info, Instant::now())?;
    if info.target.is_none() {
        return no_object(api, &info, &parts.method, &parts.headers).await;
    }
    let body::Collected { bytes, room } = body::collect(body, &api.limiter).await?;
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    let caller = identity.unwrap_or_else(Identity::anonymous);
    let call = about_object(api.clone(), info, caller, parts.headers, bytes);
    let permit = permit.map(Arc::new);
    let until_answered = permit.clone();
    let answer = async {
        let _under_way = (until_answered, room);
        call.await
    };
    if reads {
        return answer.await.map(|response| body::hold(response, permit));
    }
    let outcome = api.writes.spawn(answer).await;
    outcome.map_err(|error| ApiError::Internal(format!("the request's task ended: {error}")))?
}

/// The paths that name an object or a collection.
async fn about_object(
    api: Arc<Api>,
    info: RequestInfo,
    identity: Identity,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let target = info.target.as_ref().ok_or(ApiError::UnknownPath)?;
    let segments = [&target.namespace, &target.name];
    if segments.into_iter().flatten().any(|segment| segment.contains(['/', '%'])) {
        return Err(ApiError::BadRequest("a name in the path may not contain '/' or '%'".to_owned()));
    }
    let resource = find(&target.group, &target.version, &target.resource).ok_or(ApiError::UnknownPath)?;
    // A namespace in the path of a kind without namespaces, or none where one is needed.
    if target.namespace.is_some() != resource.namespaced
        && (target.namespace.is_some() || target.name.is_some() || !matches!(info.verb, "list" | "watch"))
    {
        return Err(ApiError::UnknownPath);
    }
    if target.subresource.as_deref() != Some("log") {
        // Before anything is done that could not be told.
        negotiate::form(&headers, &info.query)?;
    }
    verbs::options::check(&info)?;
    let call =
        Call { api: &api, resource, info: &info, target, identity: &identity, headers: &headers, body };
    if let Some(answer) = review::answer(&call).await {
        return answer;
    }
    match target.subresource.as_deref() {
        None => verbs::dispatch(&call).await,
        Some(name) if resource.subresources.contains(&name) => subresource::dispatch(&call, name).await,
        Some(_) => Err(ApiError::UnknownPath),
    }
}

/// The paths that name no object: discovery, health and version.
async fn no_object(
    api: &Api,
    info: &RequestInfo,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::MethodNotAllowed);
    }
    match info.path.trim_end_matches('/') {
        "" => Ok(body::json(StatusCode::OK, &discovery::root())),
        "/version" => Ok(body::json(StatusCode::OK, &version())),
        path @ ("/healthz" | "/livez" | "/readyz") => {
            health(api, &path[1..], info.query.has("verbose")).await
        }
        path => match openapi::answer(path, &info.query, headers) {
            Some(answer) => answer,
            None => discovery::answer(path, headers).ok_or(ApiError::UnknownPath),
        },
    }
}

async fn health(api: &Api, name: &str, verbose: bool) -> Result<Response<Body>, ApiError> {
    let store = match api.store.health().await {
        // It still serves reads, and starting it again would not help.
        Err(StoreError::Full { .. }) if name != "readyz" => Ok(()),
        store => store,
    };
    let draining = name == "readyz" && api.draining.is_cancelled();
    let healthy = store.is_ok() && !draining;
    let mut text = String::new();
    if verbose || !healthy {
        let line = |good: bool, check: &str| {
            if good { format!("[+]{check} ok\n") } else { format!("[-]{check} failed: reason withheld\n") }
        };
        text.push_str(&line(true, "ping"));
        text.push_str(&line(store.is_ok(), "store"));
        if name == "readyz" {
            text.push_str(&line(!draining, "shutdown"));
        }
        text.push_str(&format!("{name} check {}\n", if healthy { "passed" } else { "failed" }));
    } else {
        text.push_str("ok");
    }
    if let Err(error) = store {
        tracing::error!(error = crate::error::chain_of(&error), "the store does not answer");
    }
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    Ok(body::with_type(code, "text/plain; charset=utf-8", Body::from(text)))
}

/// The version of the API that is spoken, in the nine fields that generated clients require.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": concat!("v1.36.0+fairlead.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// The key of an object.
pub(crate) fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> String {
    let mut key = prefix(resource, namespace);
    key.push_str(name);
    key
}

/// What the keys of a kind, or of a kind in one namespace, begin with.
pub(crate) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/registry/{}/{namespace}/", resource.storage_prefix),
        None => format!("/registry/{}/", resource.storage_prefix),
    }
}

impl Call<'_> {
    /// The object that the path names.
    pub(crate) fn name(&self) -> Result<&str, ApiError> {
        self.target.name.as_deref().ok_or(ApiError::MethodNotAllowed)
    }

    /// The key of the object that the path names.
    pub(crate) fn key(&self) -> Result<String, ApiError> {
        Ok(key(self.resource, self.target.namespace.as_deref(), self.name()?))
    }

    /// The stored object that the path names.
    pub(crate) async fn entry(&self) -> Result<Entry, ApiError> {
        let found = self.api.store.get(&self.key()?).await?;
        found.ok_or_else(|| self.not_found())
    }

    /// Whether lists and watches show who owns which field.
    pub(crate) fn owners(&self) -> Owners {
        if self.info.in_this_process { Owners::LeftOut } else { Owners::Shown }
    }

    pub(crate) fn not_found(&self) -> ApiError {
        let name = self.target.name.clone().unwrap_or_default();
        ApiError::NotFound { resource: self.resource, name }
    }

    pub(crate) fn conflict(&self, message: impl Into<String>) -> ApiError {
        let name = self.target.name.clone().unwrap_or_default();
        ApiError::Conflict { resource: self.resource, name, message: message.into() }
    }

    /// Answers with a stored object, decoded only when its form asks for it.
    pub(crate) fn respond_stored(
        &self,
        code: StatusCode,
        stored: &[u8],
        revision: Revision,
    ) -> Result<Response<Body>, ApiError> {
        if negotiate::form(self.headers, &self.info.query)? == Form::Plain {
            let bytes = object::with_version(self.resource, stored, revision, Owners::Shown)?;
            return Ok(body::json_bytes(code, bytes));
        }
        self.respond(code, object::decode(self.resource, stored, revision)?)
    }

    /// Answers with an object that was just written, and warnings about what its writer sent.
    pub(crate) fn respond_written(
        &self,
        code: StatusCode,
        written: &Written,
        warnings: &[String],
    ) -> Result<Response<Body>, ApiError> {
        let mut response = self.respond_stored(code, &written.stored, written.revision)?;
        warn(&mut response, warnings);
        Ok(response)
    }

    /// Answers with something that is not an object of the path's kind, such as a `Status`: in no table.
    pub(crate) fn respond_other(&self, code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
        match negotiate::form(self.headers, &self.info.query)? {
            Form::Yaml => yaml(code, value),
            Form::Protobuf | Form::PartialProtobuf => Ok(body::protobuf(code, protobuf::encode(value)?)),
            _ => Ok(body::json(code, value)),
        }
    }

    /// Answers with an object.
    pub(crate) fn respond(&self, code: StatusCode, object: Value) -> Result<Response<Body>, ApiError> {
        match negotiate::form(self.headers, &self.info.query)? {
            Form::Plain => Ok(body::json(code, &object)),
            Form::Yaml => yaml(code, &object),
            Form::Partial => Ok(body::json(code, &object::partial(&object))),
            Form::Protobuf => Ok(body::protobuf(code, protobuf::encode(&object)?)),
            Form::PartialProtobuf => {
                Ok(body::protobuf(code, protobuf::encode_partial(&object::partial(&object))?))
            }
            Form::Table(include) => {
                let version = object["metadata"]["resourceVersion"].clone();
                let now = jiff::Timestamp::now();
                let mut table = table::table(self.resource, &[object], now, include);
                table["metadata"]["resourceVersion"] = version;
                Ok(body::json(code, &table))
            }
        }
    }
}

pub(crate) fn yaml(code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
    let text = serde_yaml_ng::to_string(value)
        .map_err(|error| ApiError::Internal(format!("cannot write YAML: {error}")))?;
    Ok(body::with_type(code, "application/yaml", Body::from(text)))
}

/// Adds `Warning` headers (RFC 7234, code 299), which clients print.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
