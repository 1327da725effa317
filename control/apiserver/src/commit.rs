//! The last step of every write: the object, and what must be in the store together with it, as one transaction.

use fairlead_store::{Revision, StoreError, Write};
use serde_json::Value;

use crate::addresses::{Claims, Lost};
use crate::api::Call;
use crate::error::ApiError;

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

/// Commits the write of `object`, and of what it claims.
pub(crate) async fn commit(
    call: &Call<'_>,
    own: Write,
    object: &Value,
    claims: &Claims,
) -> Result<Revision, Uncommitted> {
    let key = own.key().to_owned();
    let store = &*call.api.store;
    let mut writes = vec![own];
    writes.extend(claims.writes(store, object).await.map_err(|error| Uncommitted::Refused(error.into()))?);
    match store.transact(writes).await {
        Ok(revision) => {
            call.api.addresses.committed(claims);
            Ok(revision)
        }
        Err(
            StoreError::Exists { key: of }
            | StoreError::NotFound { key: of }
            | StoreError::Conflict { key: of, .. },
        ) => {
            if of == key {
                return Err(Uncommitted::Raced);
            }
            match call.api.addresses.lost(claims, &of) {
                Some(Lost::Refused(error)) => Err(Uncommitted::Refused(ApiError::Invalid {
                    resource: call.resource,
                    name: crate::object::meta(object, "name").to_owned(),
                    errors: vec![error],
                })),
                Some(Lost::TryAgain) | None => Err(Uncommitted::Outdated),
            }
        }
        Err(error) => Err(Uncommitted::Refused(error.into())),
    }
}
