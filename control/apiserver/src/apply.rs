//! Who owns which field, and server-side apply.
//!
//! Every write notes in `metadata.managedFields` which fields its manager changed (`Update`) or wants (`Apply`). An
//! apply says everything that its manager wants: what it says is laid over the object, what it no longer says and
//! nobody else applies is removed, and what another manager owns with another value is a conflict unless it is forced.
//!
//! All of this is pure: objects go in, objects come out. The algorithms are those of upstream's
//! `structured-merge-diff`; what has an owner of its own is a table that is made at build time.

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Value, json};

mod last_applied;
pub(crate) mod managers;
mod schema;
pub(crate) mod set;
#[cfg(test)]
mod tests;
mod walk;

use self::managers::{Manager, Managers, Operation, Owned};
use self::schema::Shape;
use self::set::{Element, FieldPath, Set};
pub(crate) use self::walk::ListError;
use crate::resource::{Resource, remove_nulls};

/// Who writes, and what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'w> {
    pub(crate) resource: &'static Resource,
    /// The subresource that is written through.
    pub(crate) subresource: Option<&'w str>,
    /// The writer's name for itself.
    pub(crate) manager: &'w str,
    /// The time of the write, as the API writes times.
    pub(crate) time: &'w str,
}

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Its owner, such as `"kubectl" using apps/v1`.
    pub(crate) owner: String,
    pub(crate) field: FieldPath,
}

/// Why an object could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApplyError {
    /// Others own fields that would change.
    Conflicts(Vec<Conflict>),
    /// The applied object has a list whose elements cannot be told apart.
    List(ListError),
}

/// Fields of `metadata` that only the server writes, or that say which object it is.
const UNOWNED_METADATA: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// Fields of an object that nobody owns; of its metadata, only what is in it.
const UNOWNED_TOP: &[&str] = &["apiVersion", "kind"];
/// The same of a kind whose status is written through its subresource.
const UNOWNED_WITH_STATUS: [&str; 3] = ["apiVersion", "kind", "status"];
/// The fields of a pod fit.
const FIELDS_LEN_USUAL: usize = 2 << 10;
/// The manager of what an object held before it was applied for the first time.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Notes in `new` which fields this write changed. `old` is the stored object, if there is one.
pub(crate) fn track(write: Writer<'_>, old: Option<&Value>, new: &mut Value) {
    let sent = take_managers(new);
    let stored = old.map_or(Value::Null, |old| old["metadata"]["managedFields"].clone());
    if managers::is_reset(&sent) && write.subresource.is_none() {
        return set_managers(new, &Managers::new());
    }
    // Clients that know nothing of managed fields leave them out, which forgets nothing.
    let mut managers = managers::decode(&sent).unwrap_or_default();
    if managers.is_empty() || write.subresource.is_some() {
        managers = managers::decode(&stored).unwrap_or_default();
    }
    if old.is_some() && managers.is_empty() {
        return set_managers(new, &managers);
    }
    let nothing = json!({});
    let old = old.unwrap_or(&nothing);
    update(write, old, new, &mut managers);
    managers::cap(&mut managers);
    set_managers(new, &managers);
}

/// Who owns the fields of an object that this write makes, as the JSON of its `managedFields`; `None` when the writer says
/// something of that itself, which [`track`] heeds.
pub(crate) fn created(write: Writer<'_>, new: &mut Value) -> Option<Vec<u8>> {
    if write.subresource.is_some()
        || new["metadata"]["managedFields"].as_array().is_some_and(|all| !all.is_empty())
    {
        return None;
    }
    take_managers(new);
    let unowned: &[&str] = if write.resource.has_status { &UNOWNED_WITH_STATUS } else { UNOWNED_TOP };
    let mut fields = Vec::with_capacity(FIELDS_LEN_USUAL);
    let shape = Shape::of(write.resource);
    if !walk::write_created(&mut fields, new, shape, (unowned, UNOWNED_METADATA)) {
        return Some(Vec::new());
    }
    Some(managers::only(
        &write.manager(Operation::Update),
        &write.resource.api_version(),
        write.time,
        &fields,
    ))
}

/// The object that comes of applying `config` to `live`, with its managed fields.
pub(crate) fn apply(
    write: Writer<'_>,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Value, ApplyError> {
    let shape = Shape::of(write.resource);
    let nothing = json!({});
    let mut managers = live.map_or_else(Managers::new, |live| {
        managers::decode(&live["metadata"]["managedFields"]).unwrap_or_default()
    });
    if let Some(live) = live.filter(|_| managers.is_empty()) {
        update(Writer { manager: BEFORE_FIRST_APPLY, ..write }, &nothing, live, &mut managers);
    }
    let live = without_managers(live.unwrap_or(&nothing));
    let applier = write.manager(Operation::Apply);
    let wanted = walk::fields(config, shape).map_err(ApplyError::List)?;
    let wanted = wanted.difference(&UNOWNED).without(&write.reset());
    let last = managers.get(&applier).cloned();
    let owned = Owned {
        fields: wanted,
        api_version: write.resource.api_version(),
        time: last.as_ref().and_then(|last| last.time.clone()),
    };
    managers.insert(applier.clone(), owned);
    let merged = walk::merge(&live, config, shape).map_err(ApplyError::List)?;
    let merged = match &last {
        Some(last) => prune(&merged, &managers, &last.fields, shape),
        None => merged,
    };
    let found = write.compare(&live, &merged);
    let conflicts = settle(write, &found, &mut managers, &applier);
    let conflicts = last_applied::conflicts_left(write, &live, conflicts);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    let changed = match (&last, managers.get(&applier)) {
        (Some(last), Some(now)) => last.fields != now.fields || last.api_version != now.api_version,
        _ => true,
    };
    if let Some(owned) = managers.get_mut(&applier).filter(|_| changed) {
        owned.time = Some(write.time.to_owned());
    }
    let mut merged = merged;
    last_applied::refresh(write, config, &mut merged);
    managers::cap(&mut managers);
    set_managers(&mut merged, &managers);
    Ok(merged)
}

/// Gives the writer what it changed, and takes it from everybody else.
fn update(write: Writer<'_>, old: &Value, new: &Value, managers: &mut Managers) {
    let updater = write.manager(Operation::Update);
    let found = write.compare(old, new);
    settle(write, &found, managers, &updater);
    let before = managers.remove(&updater);
    let had = before.as_ref().map(|owned| owned.fields.clone()).unwrap_or_default();
    let changed = found.modified.union(found.added);
    let fields = had.difference(&found.removed).union(changed).difference(&UNOWNED);
    if fields.is_empty() {
        return;
    }
    let time = match before {
        Some(owned) if owned.fields == fields => owned.time,
        _ => Some(write.time.to_owned()),
    };
    managers.insert(updater, Owned { fields, api_version: write.resource.api_version(), time });
}

/// Takes from everybody but `writer` what a write changed; returns what of it they owned and still is there.
fn settle(
    write: Writer<'_>,
    found: &walk::Comparison,
    managers: &mut Managers,
    writer: &Manager,
) -> Vec<Conflict> {
    let changed = found.modified.clone().union(found.added.clone());
    let version = write.resource.api_version();
    let mut conflicts = Vec::new();
    for (manager, owned) in managers.iter_mut() {
        // Another version of the kind may call its fields otherwise.
        if manager == writer || owned.api_version != version {
            continue;
        }
        let taken = owned.fields.intersection(&changed);
        let owner = manager.describe(owned);
        let conflict = |field| Conflict { owner: owner.clone(), field };
        conflicts.extend(taken.paths().into_iter().map(conflict));
        owned.fields = std::mem::take(&mut owned.fields).difference(&taken).difference(&found.removed);
    }
    managers.retain(|_, owned| !owned.fields.is_empty());
    conflicts
}

/// The merged object without what its applier said the last time, and now neither it nor another applier says.
fn prune(merged: &Value, managers: &Managers, last: &Set, shape: Shape) -> Value {
    let there = |value: &Value| walk::fields(value, shape).unwrap_or_default().with_named(shape);
    let without = |gone: &Set| walk::remove(merged, gone, shape);
    let last = last.with_named(shape);
    let mut applied = Set::default();
    for (_, owned) in managers.iter().filter(|(manager, _)| manager.operation == Operation::Apply) {
        applied = applied.union(owned.fields.with_named(shape));
    }
    let everything = there(merged);
    let kept = there(&without(&last));
    // Back comes what somebody applies, and then what nobody does but this applier did not say either.
    let kept = there(&without(&everything.clone().difference(&kept.union(applied))));
    let mut left = without(&everything.difference(&kept).intersection(&last));
    remove_nulls(&mut left);
    if left.is_null() { json!({}) } else { left }
}

/// What nobody owns.
static UNOWNED: LazyLock<Set> = LazyLock::new(|| {
    let field = |name: &str| Element::Field(name.to_owned());
    let mut set = Set::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[field(name)]);
    }
    for name in UNOWNED_METADATA {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
});

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    take_managers(&mut object);
    object
}

/// Removes `managedFields`, and returns them.
fn take_managers(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default()
}

fn set_managers(object: &mut Value, managers: &Managers) {
    if managers.is_empty() {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        return;
    }
    object["metadata"]["managedFields"] = managers::encode(managers);
}

impl Writer<'_> {
    fn manager(&self, operation: Operation) -> Manager {
        Manager::new(operation, self.manager, self.subresource, &self.resource.api_version())
    }

    /// What cannot be written in this way.
    fn reset(&self) -> Set {
        let mut set = Set::default();
        match self.subresource {
            None if self.resource.has_status => set.insert(&[Element::Field("status".to_owned())]),
            Some("status") => set.insert(&[Element::Field("spec".to_owned())]),
            _ => {}
        }
        set
    }

    /// What differs and may.
    fn compare(&self, old: &Value, new: &Value) -> walk::Comparison {
        let (found, reset) = (walk::compare(old, new, Shape::of(self.resource)), self.reset());
        walk::Comparison {
            added: found.added.without(&reset),
            modified: found.modified.without(&reset),
            removed: found.removed.without(&reset),
        }
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => write!(f, "failed to create typed patch object: {error}"),
            Self::Conflicts(all) => match all.as_slice() {
                [one] => {
                    write!(f, "Apply failed with 1 conflict: conflict with {}: {}", one.owner, one.field)
                }
                all => {
                    write!(f, "Apply failed with {} conflicts: ", all.len())?;
                    let mut owner = "";
                    for (index, conflict) in all.iter().enumerate() {
                        let newline = if index == 0 { "" } else { "\n" };
                        if conflict.owner != owner {
                            owner = &conflict.owner;
                            write!(f, "{newline}conflicts with {owner}:")?;
                        }
                        write!(f, "\n- {}", conflict.field)?;
                    }
                    Ok(())
                }
            },
        }
    }
}
