//! Generated names that somebody else has.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use fairlead_store::{EmbeddedStore, Revision, StoreError, Write};
use http::StatusCode;
use serde_json::json;

use crate::http::{post, value};
use crate::meddled::Meddler;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const KEY: &str = "/registry/configmaps/default/generated-";
/// How often a name is generated (upstream's KEP-4420).
const ATTEMPTS: usize = 8;

/// The next names that are generated are taken.
#[derive(Debug, Default)]
struct Taken(AtomicUsize);

#[async_trait]
impl Meddler for Taken {
    async fn transact(&self, store: &EmbeddedStore, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let key = writes[0].key().to_owned();
        let less = |left: usize| left.checked_sub(1);
        let is_taken =
            key.starts_with(KEY) && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if is_taken { Err(StoreError::Exists { key }) } else { store.transact(writes).await }
    }
}

#[tokio::test]
async fn a_generated_name_that_is_taken_is_generated_again() {
    let (server, store) = Taken::default().serve().await;
    let client = server.client();
    for (taken, code) in [
        (0, StatusCode::CREATED),
        (1, StatusCode::CREATED),
        (ATTEMPTS - 1, StatusCode::CREATED),
        (ATTEMPTS, StatusCode::CONFLICT),
    ] {
        store.by.0.store(taken, Ordering::SeqCst);
        let response = post(&client, MAPS, json!({ "metadata": { "generateName": "generated-" } })).await;
        assert_eq!(response.status(), code, "{taken}");
        let answer = value(response).await;
        assert_eq!(store.by.0.load(Ordering::SeqCst), 0, "{taken} were tried");
        if code == StatusCode::CONFLICT {
            assert_eq!(answer["reason"], "AlreadyExists", "{answer}");
        } else {
            let name = answer["metadata"]["name"].as_str().unwrap();
            assert!(name.starts_with("generated-") && name.len() == "generated-".len() + 5, "{name}");
        }
    }
    server.stop().await;
}
