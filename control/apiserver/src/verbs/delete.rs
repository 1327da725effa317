//! Deletes: at once, gracefully, or when the finalizers are gone (apiserver `registry/rest/delete.go`).

use fairlead_store::{Entry, Revision};
use http::{Response, StatusCode};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::{list, options};
use crate::api::Call;
use crate::body::{self, Body};
use crate::commit::{self, Uncommitted};
use crate::error::ApiError;
use crate::object;
use crate::resource::{FieldError, Resource};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How long a pod may take to stop when nobody says (core `DefaultTerminationGracePeriodSeconds`).
const GRACE_SECS: i64 = 30;
/// Namespaces that the cluster cannot do without (admission plugin NamespaceLifecycle).
const IMMORTAL_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public"];
/// Kinds whose delete answers with the object and not with a `Status` (upstream's `ReturnDeletedObject`).
const ANSWERED_WITH_OBJECT: &[&str] = &["pods", "services", "serviceaccounts"];

const ATTEMPTS: usize = 10;

/// What the client asked for, from the body or the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    grace_secs: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

/// What became of the object.
pub(crate) enum Deleted {
    /// It is gone.
    Gone(Value),
    /// It waits for its grace period or its finalizers.
    Waiting(Value),
}

/// Answers a delete.
pub(crate) async fn delete(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = Options::parse(call)?;
    match delete_one(call, &options).await? {
        Deleted::Gone(object) if !ANSWERED_WITH_OBJECT.contains(&call.resource.plural) => {
            let mut details = json!({
                "name": object::meta(&object, "name"),
                "kind": call.resource.plural,
                "uid": object::meta(&object, "uid"),
            });
            if !call.resource.group.is_empty() {
                details["group"] = json!(call.resource.group);
            }
            call.respond_other(StatusCode::OK, &success(Some(details)))
        }
        Deleted::Gone(object) | Deleted::Waiting(object) => call.respond(StatusCode::OK, object),
    }
}

/// Deletes the object that the path names.
pub(crate) async fn delete_one(call: &Call<'_>, options: &Options) -> Result<Deleted, ApiError> {
    for _ in 0..ATTEMPTS {
        let entry = call.entry().await?;
        if let Some(deleted) = try_delete(call, options, &entry).await? {
            return Ok(deleted);
        }
    }
    Err(call.conflict("the object keeps being modified; please try again"))
}

/// Answers a delete of everything that is selected.
pub(crate) async fn delete_collection(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = Options::parse(call)?;
    let (entries, revision) = list::all(call).await?;
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut entry = Some(entry);
        // An object that somebody else changed is read again; one that is gone is done.
        while let Some(current) = entry.take() {
            match try_delete(call, &options, &current).await? {
                Some(Deleted::Gone(object) | Deleted::Waiting(object)) => items.push(object),
                None => entry = call.api.store.get(&current.key).await?,
            }
        }
    }
    let metadata = json!({ "resourceVersion": revision.to_string() });
    call.respond_other(StatusCode::OK, &list::list_value(call, items, metadata))
}

/// A `Status` that says it worked.
pub(crate) fn success(details: Option<Value>) -> Value {
    let mut status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}

/// One attempt, at the object as it was read; `None` when another writer was faster.
pub(crate) async fn try_delete(
    call: &Call<'_>,
    options: &Options,
    entry: &Entry,
) -> Result<Option<Deleted>, ApiError> {
    let resource = call.resource;
    let mut object = object::decode(resource, &entry.value, entry.mod_revision)?;
    options.check(resource, &object)?;
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    if is_namespace && IMMORTAL_NAMESPACES.contains(&object::meta(&object, "name")) {
        return Err(ApiError::Forbidden {
            resource,
            name: object::meta(&object, "name").to_owned(),
            message: "this namespace may not be deleted".to_owned(),
            cause: None,
        });
    }
    let was_terminating = object::is_terminating(&object);
    let had = object::finalizers(&object).len();
    let gone_at_once = begin(resource, options, &mut object);
    if options.dry_run {
        return Ok(Some(if gone_at_once { Deleted::Gone(object) } else { Deleted::Waiting(object) }));
    }
    if gone_at_once {
        let deleted = settled(commit::delete(call, entry, &object).await)?;
        return Ok(deleted.map(|revision| {
            object::set_version(&mut object, revision);
            Deleted::Gone(object)
        }));
    }
    let bytes = object::encode(resource, &object);
    if was_terminating && had == object::finalizers(&object).len() && bytes == entry.value {
        return Ok(Some(Deleted::Waiting(object)));
    }
    let written = settled(commit::mark(call, entry, &object).await)?;
    Ok(written.map(|revision| {
        object::set_version(&mut object, revision);
        Deleted::Waiting(object)
    }))
}

fn settled(outcome: Result<Revision, Uncommitted>) -> Result<Option<Revision>, ApiError> {
    match outcome {
        Ok(revision) => Ok(Some(revision)),
        Err(Uncommitted::Raced | Uncommitted::Outdated) => Ok(None),
        Err(Uncommitted::Refused(error)) => Err(error),
    }
}

/// Marks the object as being deleted; true when nothing holds it any longer.
fn begin(resource: &Resource, options: &Options, object: &mut Value) -> bool {
    propagate(options.propagation.as_deref(), object);
    let grace = grace_secs(resource, options, object);
    let running = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let grace = match running.filter(|_| object::is_terminating(object)) {
        // A later delete may shorten the grace, not lengthen it.
        Some(running) if running <= grace => running,
        _ => {
            let at = Timestamp::now().saturating_add(grace.seconds()).unwrap_or(Timestamp::MAX);
            object["metadata"]["deletionTimestamp"] = object::time(at);
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            grace
        }
    };
    if resource.group.is_empty() && resource.plural == "namespaces" {
        object["status"]["phase"] = json!("Terminating");
    }
    grace == 0 && object::is_released(object)
}

/// Dependents are orphaned or deleted first by a finalizer that the garbage collector removes.
fn propagate(policy: Option<&str>, object: &mut Value) {
    let Some(policy) = policy else { return };
    let wanted = match policy {
        "Foreground" => Some(FOREGROUND),
        "Orphan" => Some(ORPHAN),
        _ => None,
    };
    let mut finalizers = object::finalizers(object);
    finalizers.retain(|name| *name != FOREGROUND && *name != ORPHAN);
    finalizers.extend(wanted);
    object["metadata"]["finalizers"] = json!(finalizers);
    if finalizers_are_empty(object) {
        object["metadata"].as_object_mut().expect("it was just indexed").remove("finalizers");
    }
}

fn finalizers_are_empty(object: &Value) -> bool {
    object::finalizers(object).is_empty()
}

/// Only a pod that may be running somewhere is stopped gracefully.
fn grace_secs(resource: &Resource, options: &Options, object: &Value) -> i64 {
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let assigned = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !is_pod || !assigned || finished {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    // No time that is less than none: upstream takes it for the least that is still graceful.
    match options.grace_secs.or(own).unwrap_or(GRACE_SECS) {
        ..0 => 1,
        secs => secs,
    }
}

impl Options {
    /// The same for one object only, and not for another of its name.
    pub(crate) fn of_one(&self, uid: &str) -> Self {
        Self { uid: Some(uid.to_owned()), ..self.clone() }
    }

    /// Whether the delete is only tried.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The options in the body, completed by those in the query.
    pub(crate) fn parse(call: &Call<'_>) -> Result<Self, ApiError> {
        let body = if call.body.is_empty() { Value::Null } else { body::parse(call.headers, &call.body)? };
        Self::from_value(call, &body)
    }

    /// The options in a `DeleteOptions` object (null for none), completed by those in the query.
    pub(crate) fn from_value(call: &Call<'_>, body: &Value) -> Result<Self, ApiError> {
        let query = &call.info.query;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut grace_secs = body["gracePeriodSeconds"].as_i64();
        if grace_secs.is_none() {
            grace_secs = query.number("gracePeriodSeconds")?;
        }
        let mut propagation = text(&body["propagationPolicy"]);
        if propagation.is_none() {
            propagation = query.get("propagationPolicy").map(str::to_owned);
        }
        let mut errors = Vec::new();
        if propagation.is_some() && (!body["orphanDependents"].is_null() || query.has("orphanDependents")) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", &json!(propagation), detail));
        }
        if propagation.is_none() && (body["orphanDependents"] == true || query.flag("orphanDependents")) {
            propagation = Some("Orphan".to_owned());
        }
        let allowed = ["Background", "Foreground", "Orphan", "nil"];
        if let Some(policy) = propagation.as_ref().filter(|policy| !allowed[..3].contains(&policy.as_str())) {
            errors.push(FieldError::not_supported("propagationPolicy", &json!(policy), &allowed));
        }
        let dry: Vec<&str> =
            body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        errors.extend(options::dry_run("dryRun", &dry));
        if !errors.is_empty() {
            return Err(ApiError::InvalidOptions { kind: "DeleteOptions", errors });
        }
        Ok(Self {
            grace_secs,
            propagation,
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: query.dry_run() || !dry.is_empty(),
        })
    }

    /// Refuses another object than that of the preconditions.
    pub(crate) fn check(&self, resource: &'static Resource, object: &Value) -> Result<(), ApiError> {
        let rows = [("UID", &self.uid, "uid"), ("ResourceVersion", &self.version, "resourceVersion")];
        for (what, wanted, field) in rows {
            let found = object::meta(object, field);
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                return Err(ApiError::Conflict {
                    resource,
                    name: object::meta(object, "name").to_owned(),
                    message: format!(
                        "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                    ),
                });
            }
        }
        Ok(())
    }
}
