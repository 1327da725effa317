use super::*;

fn put(name: &str) -> Observation {
    Observation::Changed(Change::PutNamespace(name.into()))
}

fn delete(name: &str) -> Observation {
    Observation::Changed(Change::DeleteNamespace(name.into()))
}

fn listed(log_changes_max: usize) -> Index {
    let mut index = Index::new(7, log_changes_max);
    for kind in Kind::ALL {
        index.observe(Observation::Listing(kind));
        index.observe(Observation::Listed(kind));
    }
    index.commit();
    index
}

fn commit(index: &mut Index, observations: impl IntoIterator<Item = Observation>) -> Option<u64> {
    observations.into_iter().for_each(|observation| index.observe(observation));
    index.commit().map(|revision| revision.sequence)
}

fn at(sequence: u64) -> Revision {
    Revision { epoch: 7, sequence }
}

#[test]
fn nothing_is_told_before_every_kind_is_listed() {
    let mut index = Index::new(7, 100);
    for (i, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(index.resume(Revision::default()), Resume::Wait, "after {i} kinds");
        index.observe(Observation::Listing(kind));
        index.observe(Observation::Listed(kind));
        assert_eq!(index.commit().is_some(), i == 4);
    }
    assert!(matches!(index.resume(Revision::default()), Resume::Snapshot(update) if update.snapshot));
}

#[test]
fn what_changes_nothing_makes_no_update() {
    let mut index = listed(100);
    assert_eq!(commit(&mut index, [put("a")]), Some(2));
    assert_eq!(commit(&mut index, [put("a"), delete("b")]), None);
}

#[test]
fn changes_of_one_wake_up_are_one_update() {
    let mut index = listed(100);
    assert_eq!(commit(&mut index, [put("a"), put("b"), delete("a")]), Some(2));
    let Resume::Deltas(updates) = index.resume(at(1)) else { panic!("the log knows revision 1") };
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].changes.len(), 3);
}

#[test]
fn a_reader_gets_what_it_missed() {
    let mut index = listed(100);
    for name in ["a", "b", "c"] {
        commit(&mut index, [put(name)]);
    }
    let Resume::Deltas(updates) = index.resume(at(2)) else { panic!("the log knows revision 2") };
    assert_eq!(updates.iter().map(|update| update.revision.sequence).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(index.resume(at(4)), Resume::Wait);
}

#[test]
fn a_reader_from_another_life_or_too_far_behind_gets_a_snapshot() {
    let mut index = listed(2);
    for name in ["a", "b", "c"] {
        commit(&mut index, [put(name)]);
    }
    for revision in [Revision { epoch: 6, sequence: 4 }, at(1), at(9)] {
        let Resume::Snapshot(update) = index.resume(revision) else { panic!("{revision:?} is unknown") };
        assert_eq!((update.revision, update.changes.len()), (at(4), 3));
    }
    assert!(matches!(index.resume(at(2)), Resume::Deltas(_)));
}

#[test]
fn an_object_that_a_new_listing_lacks_is_deleted() {
    let mut index = listed(100);
    commit(&mut index, [put("a"), put("b")]);
    let again = [Observation::Listing(Kind::Namespace), put("b"), Observation::Listed(Kind::Namespace)];
    assert_eq!(commit(&mut index, again), Some(3));
    let Resume::Deltas(updates) = index.resume(at(2)) else { panic!("the log knows revision 2") };
    assert_eq!(updates[0].changes, [Change::DeleteNamespace("a".into())]);
}
