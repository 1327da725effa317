//! `metadata.managedFields`: who owns which fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::Set;

/// How many managers of updates are kept apart; the oldest beyond are joined (upstream's `DefaultMaxUpdateManagers`).
const UPDATERS_MAX: usize = 10;
/// The name of those that were joined.
const ANCIENT: &str = "ancient-changes";
/// The longest name of a manager (apimachinery `FieldManagerMaxLength`).
pub(crate) const NAME_LEN_MAX: usize = 128;

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Whoever owns fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) operation: Operation,
    pub(crate) name: String,
    /// Empty for writes of the object itself.
    pub(crate) subresource: String,
    /// An applier is one manager whatever version it writes; this is empty for it.
    version: String,
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) fields: Set,
    pub(crate) api_version: String,
    /// When that changed last.
    pub(crate) time: Option<String>,
}

/// All who own fields of one object.
pub(crate) type Managers = BTreeMap<Manager, Owned>;

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl Manager {
    pub(crate) fn new(
        operation: Operation,
        name: &str,
        subresource: Option<&str>,
        api_version: &str,
    ) -> Self {
        let version = if operation == Operation::Apply { "" } else { api_version };
        Self {
            operation,
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            subresource: subresource.unwrap_or_default().to_owned(),
            version: version.to_owned(),
        }
    }

    /// As it is named in conflicts.
    pub(crate) fn describe(&self, owned: &Owned) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", owned.api_version));
            if let Some(time) = &owned.time {
                text.push_str(&format!(" at {time}"));
            }
        }
        text
    }
}

/// Whether a writer asks to forget who owns what, by a list of one empty entry.
pub(crate) fn is_reset(entries: &Value) -> bool {
    entries.as_array().is_some_and(|all| all.len() == 1 && all[0].as_object().is_some_and(Map::is_empty))
}

/// Reads `managedFields`; `Err` names the entry's field and what is wrong with it.
pub(crate) fn decode(entries: &Value) -> Result<Managers, (String, &'static str)> {
    let mut managers = Managers::new();
    for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
        let wrong = |field: &str, problem| Err((format!("metadata.managedFields[{index}].{field}"), problem));
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return wrong("operation", "must be `Apply` or `Update`"),
        };
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            return wrong("fieldsType", "must be `FieldsV1`");
        }
        if text("manager").len() > NAME_LEN_MAX {
            return wrong("manager", "may not be more than 128 bytes");
        }
        let fields = match &entry["fieldsV1"] {
            Value::Null => Some(Set::default()),
            fields => Set::from_fields_v1(fields),
        };
        let Some(fields) = fields else { return wrong("fieldsV1", "is not a set of fields") };
        let subresource = Some(text("subresource"));
        let manager = Manager::new(operation, text("manager"), subresource, text("apiVersion"));
        let owned = Owned {
            fields,
            api_version: text("apiVersion").to_owned(),
            time: entry["time"].as_str().map(str::to_owned),
        };
        managers.insert(manager, owned);
    }
    Ok(managers)
}

/// Writes `managedFields`, appliers first and then by time, as upstream does.
pub(crate) fn encode(managers: &Managers) -> Value {
    let mut entries: Vec<(&Manager, &Owned)> = managers.iter().collect();
    entries.sort_by(|(a, x), (b, y)| {
        let key = |manager: &Manager, owned: &Owned| (manager.operation, owned.time.clone());
        key(a, x).cmp(&key(b, y)).then_with(|| a.cmp(b))
    });
    let entry = |(manager, owned): (&Manager, &Owned)| {
        let mut entry = json!({
            "manager": manager.name,
            "operation": manager.operation.name(),
            "apiVersion": owned.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.fields.to_fields_v1(),
        });
        if let Some(time) = &owned.time {
            entry["time"] = json!(time);
        }
        if !manager.subresource.is_empty() {
            entry["subresource"] = json!(manager.subresource);
        }
        entry
    };
    entries.into_iter().map(entry).collect()
}

/// `managedFields` of one manager, whose fields are JSON already; the same bytes as [`encode`]'s.
pub(super) fn only(manager: &Manager, api_version: &str, time: &str, fields: &[u8]) -> Vec<u8> {
    let text = |text: &str| Value::from(text).to_string();
    let mut json = Vec::with_capacity(fields.len() + 256);
    json.extend_from_slice(b"[{\"apiVersion\":");
    json.extend_from_slice(text(api_version).as_bytes());
    json.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
    json.extend_from_slice(fields);
    json.extend_from_slice(b",\"manager\":");
    json.extend_from_slice(text(&manager.name).as_bytes());
    let operation = format!(",\"operation\":\"{}\",\"time\":", manager.operation.name());
    json.extend_from_slice(operation.as_bytes());
    json.extend_from_slice(text(time).as_bytes());
    json.extend_from_slice(b"}]");
    json
}

/// Joins the oldest managers of updates when there are too many.
pub(crate) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<(Option<String>, Manager)> = managers
        .iter()
        .filter(|(manager, _)| manager.operation == Operation::Update)
        .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
        .collect();
    if updaters.len() <= UPDATERS_MAX {
        return;
    }
    updaters.sort_unstable();
    let mut left = updaters.len();
    for (_, manager) in updaters {
        if left <= UPDATERS_MAX {
            break;
        }
        if manager.name == ANCIENT {
            continue;
        }
        let Some(owned) = managers.remove(&manager) else { continue };
        left -= 1;
        let joined = Manager { name: ANCIENT.to_owned(), ..manager };
        match managers.get_mut(&joined) {
            Some(ancient) => {
                ancient.fields = std::mem::take(&mut ancient.fields).union(owned.fields);
                ancient.time = ancient.time.take().max(owned.time);
            }
            None => {
                managers.insert(joined, owned);
                left += 1;
            }
        }
    }
}
