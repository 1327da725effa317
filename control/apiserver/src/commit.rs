//! The last steps of every write: admission, the kind's rules, and the transaction that holds the object and what must
//! be in the store together with it: the addresses it claims, the quotas it is charged to.

use bytes::Bytes;
use fairlead_store::{Entry, Revision, StoreError, Write};
use serde_json::Value;

use crate::addresses::{self, Claims, Lost};
use crate::admission::{Attempt, Stage, quota};
use crate::api::{Call, key};
use crate::error::ApiError;
use crate::furnish;
use crate::object;
use crate::resource::validate_write;

/// How often a write is planned again because something that it needs was taken meanwhile. Each time somebody else has
/// succeeded.
const PLAN_ATTEMPTS: usize = 500;

/// An object after a write.
#[derive(Debug)]
pub(crate) struct Written {
    /// As it was written: of its resource version it does not know, nor, when it is new, of who owns its fields.
    pub(crate) object: Value,
    /// As it is stored.
    pub(crate) stored: Bytes,
    pub(crate) revision: Revision,
}

/// Why a write did not happen.
#[derive(Debug)]
pub(crate) enum Uncommitted {
    /// The object was there already, is gone, or was changed by another writer.
    Raced,
    /// What is written with it was somebody else's meanwhile; planned again, it can succeed.
    Outdated,
    /// It cannot succeed.
    Refused(ApiError),
}

impl<E: Into<ApiError>> From<E> for Uncommitted {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Admits, checks and stores a new object; `owners` are its `managedFields` as JSON, unless it holds them itself.
pub(crate) async fn create(call: &Call<'_>, mut object: Value, owners: &[u8]) -> Result<Written, ApiError> {
    let name = object::meta(&object, "name").to_owned();
    // What is planned for a Service is written into it, and must not be taken for what its writer wants when it is
    // planned again. What admission completes is the same each time.
    let original = addresses::has_addresses(call.resource).then(|| object.clone());
    for _ in 0..PLAN_ATTEMPTS {
        match try_create(call, &mut object, owners, &name).await {
            Err(Uncommitted::Outdated) => {}
            Err(Uncommitted::Raced) => return Err(ApiError::AlreadyExists { resource: call.resource, name }),
            Err(Uncommitted::Refused(error)) => return Err(error),
            Ok((stored, revision)) => return Ok(Written { object, stored, revision }),
        }
        if let Some(original) = &original {
            object.clone_from(original);
        }
    }
    Err(ApiError::TryAgain("too many others write at the same time, please try again".to_owned()))
}

async fn try_create(
    call: &Call<'_>,
    object: &mut Value,
    owners: &[u8],
    name: &str,
) -> Result<(Bytes, Revision), Uncommitted> {
    let attempt = Attempt::of(call, None, None);
    let claims = check(call, &attempt, object).await?;
    let mut with_it = quota::charges(&attempt, Some(object)).await?;
    with_it.extend(furnish::companions(call.api, call.resource, object).await?);
    let key = key(call.resource, call.target.namespace.as_deref(), name);
    let stored = object::encode_with(call.resource, object, owners);
    if call.info.query.dry_run() {
        let found = call.api.store.get(&key).await?;
        return if found.is_some() { Err(Uncommitted::Raced) } else { Ok((stored, 0)) };
    }
    let own = Write::Create { key, value: stored.clone() };
    let revision = transact(call, own, object, &claims, with_it).await?;
    Ok((stored, revision))
}

/// Admits, checks and stores the new state of an object. Without `old` the write is the server's own, and nothing of it
/// is checked. An object that nothing holds any longer is removed.
pub(crate) async fn update(
    call: &Call<'_>,
    entry: &Entry,
    mut new: Value,
    old: Option<&Value>,
    subresource: Option<&str>,
) -> Result<Written, Uncommitted> {
    let resource = call.resource;
    let attempt = Attempt::of(call, old, subresource);
    let mut claims = Claims::default();
    let mut charges = Vec::new();
    let released = object::is_released(&new);
    if old.is_some() {
        claims = check(call, &attempt, &mut new).await?;
        charges = quota::charges(&attempt, (!released).then_some(&new)).await?;
    }
    let stored = object::encode(resource, &new);
    if call.info.query.dry_run() || stored == entry.value {
        return Ok(Written { object: new, stored, revision: entry.mod_revision });
    }
    let (key, expected) = (entry.key.clone(), entry.mod_revision);
    let own = if released {
        claims = call.api.addresses.release(resource, old.unwrap_or(&new));
        Write::Delete { key, expected: Some(expected) }
    } else {
        Write::Update { key, value: stored.clone(), expected }
    };
    let revision = transact(call, own, &new, &claims, charges).await?;
    Ok(Written { object: new, stored, revision })
}

/// Removes an object, and gives back what it had.
pub(crate) async fn delete(call: &Call<'_>, entry: &Entry, object: &Value) -> Result<Revision, Uncommitted> {
    let claims = call.api.addresses.release(call.resource, object);
    let charges = quota::charges(&Attempt::of(call, Some(object), None), None).await?;
    let own = Write::Delete { key: entry.key.clone(), expected: Some(entry.mod_revision) };
    transact(call, own, object, &claims, charges).await
}

/// Stores an object whose deletion has begun.
pub(crate) async fn mark(call: &Call<'_>, entry: &Entry, object: &Value) -> Result<Revision, Uncommitted> {
    let value = object::encode(call.resource, object);
    let own = Write::Update { key: entry.key.clone(), value, expected: entry.mod_revision };
    transact(call, own, object, &Claims::default(), Vec::new()).await
}

/// Completes the object and holds it against every rule; returns what it claims.
async fn check(call: &Call<'_>, attempt: &Attempt<'_>, object: &mut Value) -> Result<Claims, Uncommitted> {
    let (resource, store) = (call.resource, &*call.api.store);
    attempt.run(Stage::Change, object).await?;
    // Addresses first: what they complete is what is validated.
    let claims = call.api.addresses.plan(store, resource, object, attempt.old).await?;
    let mut errors = validate_write(resource, object, attempt.old, attempt.subresource);
    if errors.is_empty() && call.info.query.dry_run() {
        errors = claims.conflicts(store).await?;
    }
    if !errors.is_empty() {
        let name = object::meta(object, "name").to_owned();
        return Err(ApiError::Invalid { resource, name, errors }.into());
    }
    attempt.run(Stage::Check, object).await?;
    Ok(claims)
}

async fn transact(
    call: &Call<'_>,
    own: Write,
    object: &Value,
    claims: &Claims,
    with_it: Vec<Write>,
) -> Result<Revision, Uncommitted> {
    let key = own.key().to_owned();
    let store = &*call.api.store;
    let mut writes = vec![own];
    writes.extend(claims.writes(store, object).await?);
    writes.extend(with_it);
    let found = match store.transact(writes).await {
        Ok(revision) => {
            call.api.addresses.committed(claims);
            return Ok(revision);
        }
        Err(StoreError::Exists { key } | StoreError::NotFound { key } | StoreError::Conflict { key, .. }) => {
            key
        }
        Err(error) => return Err(error.into()),
    };
    if found == key {
        return Err(Uncommitted::Raced);
    }
    match call.api.addresses.lost(claims, &found) {
        Some(Lost::Refused(error)) => {
            let name = object::meta(object, "name").to_owned();
            Err(ApiError::Invalid { resource: call.resource, name, errors: vec![error] }.into())
        }
        Some(Lost::TryAgain) | None => Err(Uncommitted::Outdated),
    }
}
