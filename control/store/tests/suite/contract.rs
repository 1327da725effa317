//! What every store must do, whatever it is made of.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use fairlead_store::{Entry, EventKind, ListRequest, Store, StoreError, Write};

/// Runs the whole contract, each part on an empty store from `make` (with a guard that keeps it usable). An empty
/// store may be at any revision: etcd begins at 1, and other prefixes of one etcd raise it.
pub(crate) async fn check<G>(make: impl AsyncFn() -> (Arc<dyn Store>, G)) {
    let (store, _guard) = make().await;
    writes_need_their_precondition(&*store).await;
    let (store, _guard) = make().await;
    transactions_are_whole_or_absent(store).await;
    let (store, _guard) = make().await;
    lists_are_ordered_paged_and_repeatable(&*store).await;
    let (store, _guard) = make().await;
    watches_see_every_change_once(store).await;
    let (store, _guard) = make().await;
    compaction_ends_old_reads(&*store).await;
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn failed<T: Debug>(result: Result<T, StoreError>) -> StoreError {
    result.expect_err("the call must be refused")
}

async fn writes_need_their_precondition(store: &dyn Store) {
    let empty = store.revision().await.unwrap();
    assert!(store.health().await.is_ok());
    assert!(matches!(failed(store.update("/a", value("x"), 1).await), StoreError::NotFound { .. }));
    assert!(matches!(failed(store.delete("/a", None).await), StoreError::NotFound { .. }));
    let created = store.create("/a", value("1")).await.unwrap();
    assert_eq!(created, empty + 1);
    assert!(matches!(failed(store.create("/a", value("2")).await), StoreError::Exists { .. }));
    let updated = store.update("/a", value("2"), created).await.unwrap();
    assert!(updated > created);
    let error = failed(store.update("/a", value("3"), created).await);
    assert!(
        matches!(error, StoreError::Conflict { expected, actual, .. } if (expected, actual) == (created, updated))
    );
    let error = failed(store.delete("/a", Some(created)).await);
    assert!(matches!(error, StoreError::Conflict { .. }));
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision), (created, updated));
    assert_eq!(entry.value, value("2"));
    let deleted = store.delete("/a", Some(updated)).await.unwrap();
    assert!(deleted > updated);
    assert_eq!(store.get("/a").await.unwrap(), None);
    let again = store.create("/a", value("4")).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap().unwrap().create_revision, again);
    assert_eq!(store.revision().await.unwrap(), again);
}

async fn transactions_are_whole_or_absent(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 10;
    let create = |key: &str| Write::Create { key: key.into(), value: value("100") };
    let first = store.create("/t/a", value("1")).await.unwrap();
    // One precondition that does not hold, wherever it stands, and nothing is written.
    let update = |expected| Write::Update { key: "/t/a".into(), value: value("2"), expected };
    let missing = || Write::Delete { key: "/t/none".into(), expected: None };
    let error = failed(store.transact(vec![create("/t/b"), update(first + 7)]).await);
    assert!(matches!(error, StoreError::Conflict { key, .. } if key == "/t/a"));
    let error = failed(store.transact(vec![create("/t/b"), create("/t/a")]).await);
    assert!(matches!(error, StoreError::Exists { key } if key == "/t/a"));
    let error = failed(store.transact(vec![update(first), missing()]).await);
    assert!(matches!(error, StoreError::NotFound { key } if key == "/t/none"));
    let error = failed(store.transact(vec![create("/t/b"), create("/t/b")]).await);
    assert!(matches!(error, StoreError::NamedTwice { key } if key == "/t/b"));
    let listing = store.list(ListRequest::prefix("/t/")).await.unwrap();
    assert_eq!((listing.entries.len(), listing.revision), (1, first));

    let mut watch = store.watch("/t/", first).await.unwrap();
    let whole = store.transact(vec![create("/t/b"), update(first), create("/t/c")]).await.unwrap();
    assert_eq!(store.get("/t/b").await.unwrap().unwrap().mod_revision, whole);
    for expected in ["/t/b", "/t/a", "/t/c"] {
        let event = watch.next().await.unwrap();
        assert_eq!(event.key, expected);
        assert!(event.revision >= whole);
    }

    // Everybody moves one unit between two accounts; the sum stays.
    store.transact(vec![create("/x"), create("/y")]).await.unwrap();
    let mut movers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        movers.spawn(async move {
            let mut moved = 0;
            while moved < ROUNDS {
                let [x, y] =
                    [store.get("/x").await.unwrap().unwrap(), store.get("/y").await.unwrap().unwrap()];
                let change = |entry: &Entry, by: i64| {
                    let amount: i64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let value = (amount + by).to_string().into();
                    Write::Update { key: entry.key.clone(), value, expected: entry.mod_revision }
                };
                match store.transact(vec![change(&x, -1), change(&y, 1)]).await {
                    Ok(_) => moved += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    while let Some(result) = movers.join_next().await {
        result.unwrap();
    }
    let moved = (WRITERS * ROUNDS) as i64;
    for (key, expected) in [("/x", 100 - moved), ("/y", 100 + moved)] {
        assert_eq!(store.get(key).await.unwrap().unwrap().value, expected.to_string());
    }
}

async fn lists_are_ordered_paged_and_repeatable(store: &dyn Store) {
    let empty = store.revision().await.unwrap();
    for key in ["/p/c", "/p/a", "/p/b", "/q/a", "/p"] {
        store.create(key, value(key)).await.unwrap();
    }
    let keys = |entries: &[Entry]| -> Vec<String> { entries.iter().map(|entry| entry.key.clone()).collect() };
    let all = store.list(ListRequest::prefix("/p/")).await.unwrap();
    assert_eq!(keys(&all.entries), ["/p/a", "/p/b", "/p/c"]);
    assert_eq!((all.revision, all.remaining), (empty + 5, 0));

    let request = ListRequest { limit: Some(2), ..ListRequest::prefix("/p/") };
    let first = store.list(request.clone()).await.unwrap();
    assert_eq!((keys(&first.entries), first.remaining), (vec!["/p/a".into(), "/p/b".into()], 1));
    // What changes between two pages is not seen by the second.
    store.create("/p/bb", value("new")).await.unwrap();
    store.delete("/p/c", None).await.unwrap();
    let rest =
        ListRequest { after: Some("/p/b".into()), at: Some(first.revision), ..ListRequest::prefix("/p/") };
    let second = store.list(rest).await.unwrap();
    assert_eq!((keys(&second.entries), second.revision), (vec!["/p/c".into()], first.revision));
    assert_eq!(second.entries[0], all.entries[2]);

    // Bounded in bytes: a page holds what comes first, however long it is, and then ends as soon as it is long enough.
    for (bytes_max, expected) in
        [(1, &["/p/a"][..]), (5, &["/p/a", "/p/b"]), (13, &["/p/a", "/p/b", "/p/bb", "/p/c"])]
    {
        let at = Some(empty + 6);
        let request = ListRequest { bytes_max: Some(bytes_max), at, ..ListRequest::prefix("/p/") };
        let page = store.list(request).await.unwrap();
        assert_eq!(keys(&page.entries), expected, "{bytes_max}");
        assert_eq!(page.remaining > 0, expected.len() < 4, "{bytes_max}");
    }

    let future = ListRequest { at: Some(empty + 99), ..ListRequest::prefix("/p/") };
    let error = failed(store.list(future).await);
    let expected = (empty + 99, empty + 7);
    assert!(
        matches!(error, StoreError::FutureRevision { requested, current } if (requested, current) == expected)
    );
    assert_eq!(store.list(ListRequest::prefix("")).await.unwrap().entries.len(), 5);
    assert!(store.list(ListRequest::prefix("/none/")).await.unwrap().entries.is_empty());
}

async fn watches_see_every_change_once(store: Arc<dyn Store>) {
    const WRITERS: usize = 4;
    const WRITES: usize = 25;
    let empty = store.revision().await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..WRITES {
                store.create(&format!("/w/{writer}/{n}"), value("x")).await.unwrap();
                store.create(&format!("/other/{writer}/{n}"), value("x")).await.unwrap();
            }
        });
    }
    // Watches that begin in the middle of the writes, each from a different revision.
    let mut watchers = JoinSet::new();
    for after in [0, 3, 10, 20].map(|writes| empty + writes) {
        while store.revision().await.unwrap() < after {
            tokio::task::yield_now().await;
        }
        let mut watch = store.watch("/w/", after).await.unwrap();
        let listed = ListRequest { at: Some(after), ..ListRequest::prefix("/w/") };
        let before = store.list(listed).await.unwrap().entries.len();
        watchers.spawn(async move {
            let mut last = after;
            for _ in before..WRITERS * WRITES {
                let event = watch.next().await.unwrap();
                assert!(event.revision > last && event.kind == EventKind::Created);
                last = event.revision;
            }
            watch
        });
    }
    while let Some(result) = writers.join_next().await {
        result.unwrap();
    }
    let current = store.revision().await.unwrap();
    while let Some(result) = watchers.join_next().await {
        let mut watch = result.unwrap();
        assert!(watch.try_next().unwrap().is_none());
        assert!(watch.progress() <= current);
    }

    let mut watch = store.watch("/w/0/0", current).await.unwrap();
    let deleted = store.delete("/w/0/0", None).await.unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!((event.kind, event.revision), (EventKind::Deleted, deleted));
    assert_eq!((event.value.clone(), event.previous.clone()), (None, Some(value("x"))));
    let error = failed(store.watch("/w/", deleted + 1).await);
    assert!(matches!(error, StoreError::FutureRevision { .. }));
}

async fn compaction_ends_old_reads(store: &dyn Store) {
    let empty = store.revision().await.unwrap();
    for n in 1..=5 {
        store.create(&format!("/{n}"), value("x")).await.unwrap();
    }
    let upto = empty + 3;
    store.compact(upto).await.unwrap();
    let error = failed(store.watch("/", upto - 1).await);
    let expected = (upto - 1, upto);
    assert!(
        matches!(error, StoreError::Compacted { requested, compacted } if (requested, compacted) == expected)
    );
    let old = ListRequest { at: Some(upto - 1), ..ListRequest::prefix("/") };
    let error = failed(store.list(old).await);
    assert!(
        matches!(error, StoreError::Compacted { requested, compacted } if (requested, compacted) == expected)
    );
    // What is forgotten already, and what has not happened, is no reason to complain.
    store.compact(upto).await.unwrap();
    let mut watch = store.watch("/", upto).await.unwrap();
    assert_eq!(watch.next().await.unwrap().key, "/4");
    assert_eq!(store.list(ListRequest::prefix("/")).await.unwrap().entries.len(), 5);
}
