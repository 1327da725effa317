//! Creates.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::admit::{self, Ownership};
use crate::api::Call;
use crate::apply::{self, Writer};
use crate::body::{self, Body};
use crate::commit::{self, Written};
use crate::error::ApiError;
use crate::object;
use crate::resource::{default, prepare_for_create};

/// What generated names end with: no vowels, and nothing that looks like something else (apimachinery `util/rand`).
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX_LEN: usize = 5;
/// The longest generated name (apiserver `storage/names`).
const NAME_LEN_MAX: usize = 63;
/// How often a generated name that is taken is generated again (KEP-4420).
const GENERATE_ATTEMPTS: usize = 8;

/// Answers a create.
pub(crate) async fn create(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let (mut object, duplicates) = body::parse_strict(call.headers, &call.body)?;
    let warnings = admit::incoming(call, &mut object, &duplicates)?;
    let written = insert(call, object, Ownership::Changed).await?;
    call.respond_written(StatusCode::CREATED, &written, &warnings)
}

/// Completes and stores a new object of the call's kind.
pub(super) async fn insert(
    call: &Call<'_>,
    mut object: Value,
    ownership: Ownership,
) -> Result<Written, ApiError> {
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
        return store(call, object, ownership).await;
    }
    let mut taken = String::new();
    for _ in 0..GENERATE_ATTEMPTS {
        let mut attempt = object.clone();
        attempt["metadata"]["name"] = json!(generated_name(&generate));
        default(resource, &mut attempt);
        match store(call, attempt, ownership).await {
            Err(ApiError::AlreadyExists { name, .. }) => taken = name,
            outcome => return outcome,
        }
    }
    Err(ApiError::AlreadyExists { resource, name: taken })
}

async fn store(call: &Call<'_>, mut object: Value, ownership: Ownership) -> Result<Written, ApiError> {
    let resource = call.resource;
    let mut owners = Vec::new();
    if ownership == Ownership::Changed {
        let (manager, time) = (admit::manager(call), object::now());
        let write = Writer { resource, subresource: None, manager, time: &time };
        match apply::created(write, &mut object) {
            Some(all) => owners = all,
            None => apply::track(write, None, &mut object),
        }
    }
    commit::create(call, object, &owners).await
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
