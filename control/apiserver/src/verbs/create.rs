//! Creates.

use fairlead_store::{Revision, Write};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::admit;
use crate::api::{Call, key, warn};
use crate::body::{self, Body};
use crate::commit::{Uncommitted, commit};
use crate::error::ApiError;
use crate::object;
use crate::resource::{default, prepare_for_create, validate};

/// What generated names end with: no vowels, and nothing that looks like something else (apimachinery `util/rand`).
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX_LEN: usize = 5;
/// The longest generated name (apiserver `storage/names`).
const NAME_LEN_MAX: usize = 63;
/// How often a generated name that is taken is generated again (KEP-4420).
const GENERATE_ATTEMPTS: usize = 8;
/// How often a write is planned again because something that it needs was taken meanwhile.
const PLAN_ATTEMPTS: usize = 200;

/// Answers a create.
pub(crate) async fn create(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let (mut object, duplicates) = body::parse_strict(call.headers, &call.body)?;
    let warnings = admit::incoming(call, &mut object, &duplicates)?;
    let (object, revision) = insert(call, object).await?;
    let mut object = object;
    object::set_version(&mut object, revision);
    let mut response = call.respond(StatusCode::CREATED, object)?;
    warn(&mut response, &warnings);
    Ok(response)
}

/// Completes and stores a new object of the call's kind.
async fn insert(call: &Call<'_>, mut object: Value) -> Result<(Value, Revision), ApiError> {
    let resource = call.resource;
    if !object::meta(&object, "resourceVersion").is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::BadRequest(message.to_owned()));
    }
    let given = object::meta(&object, "name").to_owned();
    let generate = object::meta(&object, "generateName").to_owned();
    admit::namespace_takes_objects(call, &given).await?;
    let metadata = object::metadata_mut(&mut object)?;
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), object::time(Timestamp::now()));
    prepare_for_create(resource, &mut object);
    if !given.is_empty() || generate.is_empty() {
        default(resource, &mut object);
        return store(call, object).await;
    }
    let mut taken = String::new();
    for _ in 0..GENERATE_ATTEMPTS {
        let mut attempt = object.clone();
        attempt["metadata"]["name"] = json!(generated_name(&generate));
        default(resource, &mut attempt);
        match store(call, attempt).await {
            Err(ApiError::AlreadyExists { name, .. }) => taken = name,
            outcome => return outcome,
        }
    }
    Err(ApiError::AlreadyExists { resource, name: taken })
}

async fn store(call: &Call<'_>, object: Value) -> Result<(Value, Revision), ApiError> {
    let name = object::meta(&object, "name").to_owned();
    for _ in 0..PLAN_ATTEMPTS {
        match try_store(call, object.clone(), &name).await {
            Err(Uncommitted::Outdated) => {}
            Err(Uncommitted::Raced) => return Err(ApiError::AlreadyExists { resource: call.resource, name }),
            Err(Uncommitted::Refused(error)) => return Err(error),
            Ok(created) => return Ok(created),
        }
    }
    Err(ApiError::TryAgain("too many others write at the same time, please try again".to_owned()))
}

async fn try_store(call: &Call<'_>, mut object: Value, name: &str) -> Result<(Value, Revision), Uncommitted> {
    let resource = call.resource;
    let store = &*call.api.store;
    let refused = Uncommitted::Refused;
    // Addresses first: what they complete is what is validated.
    let claims = call.api.addresses.plan(store, resource, &mut object, None).await.map_err(refused)?;
    let mut errors = validate(resource, &object, None);
    let key = key(resource, call.target.namespace.as_deref(), name);
    let dry_run = call.info.query.dry_run().map_err(refused)?;
    if dry_run && errors.is_empty() {
        errors = claims.conflicts(store).await.map_err(|error| refused(error.into()))?;
    }
    if !errors.is_empty() {
        return Err(refused(ApiError::Invalid { resource, name: name.to_owned(), errors }));
    }
    if dry_run {
        let found = store.get(&key).await.map_err(|error| refused(error.into()))?;
        return if found.is_some() { Err(Uncommitted::Raced) } else { Ok((object, 0)) };
    }
    let own = Write::Create { key, value: object::encode(resource, &object) };
    let revision = commit(call, own, &object, &claims).await?;
    Ok((object, revision))
}

fn generated_name(base: &str) -> String {
    let mut name = base.to_owned();
    let mut length = name.len().min(NAME_LEN_MAX - NAME_SUFFIX_LEN);
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    name.truncate(length);
    for _ in 0..NAME_SUFFIX_LEN {
        let index = rand::random_range(0..NAME_ALPHABET.len());
        name.push(char::from(NAME_ALPHABET[index]));
    }
    name
}
