//! Messages and schemas brought together: which field of a message is which field of the JSON object.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::messages::{Field, Label, Message};
use crate::schemas::Schemas;

/// Booleans that are no pointers in Go: there, `false` is on the wire although nobody wrote it.
const PLAIN_BOOLS: &[&str] = &[
    "expandEnv",
    "globalDefault",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "namespaced",
    "paused",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
];

/// Numbers that are pointers in Go, where zero is not the same as nothing.
const POINTER_NUMBERS: &[&str] = &[
    "activeDeadlineSeconds",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "completions",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "int",
    "leaseDurationSeconds",
    "leaseTransitions",
    "lendablePercent",
    "lun",
    "maxFailedIndexes",
    "minDomains",
    "minReplicas",
    "mode",
    "nominalConcurrencyShares",
    "observedGeneration",
    "parallelism",
    "partition",
    "priority",
    "progressDeadlineSeconds",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsUser",
    "seconds",
    "stabilizationWindowSeconds",
    "startingDeadlineSeconds",
    "succeededCount",
    "successfulJobsHistoryLimit",
    "terminating",
    "terminationGracePeriodSeconds",
    "timeoutSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "value",
];

/// Fields of those names that are no pointers.
const NO_POINTERS: &[(&str, &str)] = &[
    ("DaemonSetStatus", "observedGeneration"),
    ("DeploymentStatus", "observedGeneration"),
    ("DeploymentStatus", "replicas"),
    ("NodeStatus", "observedGeneration"),
    ("PodCondition", "observedGeneration"),
    ("PodDisruptionBudgetStatus", "observedGeneration"),
    ("PodStatus", "observedGeneration"),
    ("Probe", "timeoutSeconds"),
    ("ReplicaSetStatus", "observedGeneration"),
    ("ReplicationControllerStatus", "observedGeneration"),
    ("ScaleSpec", "replicas"),
    ("StatefulSetStatus", "observedGeneration"),
];

/// Texts that are pointers in Go and where the empty one says something.
const POINTER_TEXTS: &[(&str, &str)] = &[
    ("EndpointPort", "name"),
    ("LeaseSpec", "holderIdentity"),
    ("PersistentVolumeClaimSpec", "storageClassName"),
    ("PersistentVolumeClaimSpec", "volumeAttributesClassName"),
];

/// Numbers-or-texts that are no pointers and not required.
const PLAIN_INT_OR_STRINGS: &[(&str, &str)] = &[("ServicePort", "targetPort")];

/// The messages of every kind of a stable version, numbered.
pub(crate) struct Table<'a> {
    messages: &'a BTreeMap<String, Message>,
    schemas: &'a Schemas,
    order: Vec<&'a str>,
    numbers: BTreeMap<&'a str, usize>,
    kinds: BTreeMap<(String, String), usize>,
}

impl<'a> Table<'a> {
    pub(crate) fn of(messages: &'a BTreeMap<String, Message>, schemas: &'a Schemas) -> Self {
        let (order, numbers, kinds) = Default::default();
        let mut table = Self { messages, schemas, order, numbers, kinds };
        for (name, message) in messages {
            if let Some(kind) = table.kind_of(name, message) {
                let number = table.number(name);
                table.kinds.insert(kind, number);
            }
        }
        let mut next = 0;
        while let Some(name) = table.order.get(next) {
            for inner in messages[*name].fields.iter().filter_map(|field| field.message.as_ref()) {
                if leaf(table.schemas, messages, inner).is_none() {
                    table.number(inner);
                }
            }
            next += 1;
        }
        table
    }

    fn number(&mut self, name: &str) -> usize {
        let (name, _) = self.messages.get_key_value(name).unwrap_or_else(|| panic!("no message {name}"));
        let next = self.order.len();
        *self.numbers.entry(name).or_insert_with(|| {
            self.order.push(name);
            next
        })
    }

    /// `apiVersion` and `kind` of a message that is an object of a stable version or the options of a call.
    fn kind_of(&self, name: &str, message: &Message) -> Option<(String, String)> {
        let (package, last) = name.rsplit_once('.')?;
        if package == "io.k8s.apimachinery.pkg.apis.meta.v1" {
            let known = ["DeleteOptions", "Status"].contains(&last);
            return known.then(|| ("meta.k8s.io/v1".to_owned(), last.to_owned()));
        }
        let stable = package.ends_with(".v1") || package.ends_with(".v2");
        if !package.starts_with("io.k8s.api.") || !stable {
            return None;
        }
        let first = message.fields.iter().find(|field| field.name == "metadata")?;
        first.message.as_ref().filter(|message| message.ends_with(".ObjectMeta"))?;
        if let Some(kind) = &message.kind {
            return Some(kind.clone());
        }
        // Objects of subresources; they are of the version that the others in their package are.
        let neighbours = self.messages.range(package.to_owned()..);
        let mut neighbours = neighbours.take_while(|(name, _)| name.starts_with(package));
        let (version, _) = neighbours.find_map(|(_, message)| message.kind.as_ref())?;
        let (schema, _) = self.schemas.find(name)?;
        Some((version.clone(), schema.rsplit('.').next()?.to_owned()))
    }

    /// The table as Rust source, of the types in `src/protobuf/table.rs`.
    pub(crate) fn to_rust(&self) -> String {
        let mut out = String::from("pub(super) static MESSAGES: &[Message] = &[\n");
        for name in &self.order {
            let message = &self.messages[*name];
            let schema = self.schema(name);
            writeln!(out, "    // {name}\n    Message {{ fields: &[").expect("memory");
            let mut fields: Vec<&Field> = message.fields.iter().collect();
            fields.sort_by_key(|field| field.number);
            for field in fields {
                out.extend(self.field(name, field, schema));
            }
            out.push_str("    ] },\n");
        }
        out.push_str("];\n\npub(super) static KINDS: &[(&str, &str, u16)] = &[\n");
        for ((version, kind), number) in &self.kinds {
            writeln!(out, "    ({version:?}, {kind:?}, {number}),").expect("memory");
        }
        out.push_str("];\n");
        out
    }

    /// The JSON properties of a message: its own type's, or those of the type that it is embedded in.
    fn schema(&self, name: &str) -> &'a Value {
        let known = |name: &str| self.schemas.find(name).map(|(_, schema)| schema);
        let embeds = |owner: &&Message| {
            owner
                .fields
                .iter()
                .any(|field| field.message.as_deref() == Some(name) && field.label == Label::One)
        };
        let owner = || {
            let mut owners = self.messages.iter().filter(|(_, message)| embeds(message));
            owners.find_map(|(owner, _)| known(owner))
        };
        known(name).or_else(owner).unwrap_or_else(|| panic!("no schema is about {name}"))
    }

    /// The row of a field, if this version of the API has the field.
    fn field(&self, message: &str, field: &Field, schema: &Value) -> Option<String> {
        let inner = field.message.as_deref();
        let leaf = inner.and_then(|inner| leaf(self.schemas, self.messages, inner));
        let form = match (leaf, inner) {
            (Some(leaf), _) => leaf.to_owned(),
            (None, Some(inner)) => format!("Form::Message({})", self.numbers[inner]),
            (None, None) => format!("Form::{}", capitalized(&field.scalar)),
        };
        let found = property(schema, &field.name);
        let label = match field.label {
            Label::Repeated => "Repeated",
            Label::Map => "Map",
            Label::One if found.is_some() => "One",
            // Embedded structs of Go are fields on the wire, and part of their owner in JSON.
            Label::One => {
                let embedded = |field: &Field| property(schema, &field.name).is_some();
                self.messages[inner?].fields.iter().any(embedded).then_some("Inline")?
            }
        };
        let name = if label == "Inline" { field.name.as_str() } else { found? };
        let required = schema["required"].as_array();
        let required = required.is_some_and(|names| names.iter().any(|required| *required == *name));
        let owner = message.rsplit('.').next().unwrap_or_default();
        let drops_zero = label == "One" && !required && drops_zero(owner, name, &form);
        let number = field.number;
        Some(format!(
            "        Field {{ number: {number}, name: {name:?}, form: {form}, label: Label::{label}, drops_zero: {drops_zero} }},\n"
        ))
    }
}

/// The JSON property of a field, whose capitals are lost.
fn property<'s>(schema: &'s Value, field: &str) -> Option<&'s str> {
    let flat = field.replace('_', "");
    let properties = schema["properties"].as_object()?;
    properties.keys().find(|name| name.eq_ignore_ascii_case(&flat)).map(String::as_str)
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// Whether a zero on the wire means that nothing was set.
fn drops_zero(owner: &str, name: &str, form: &str) -> bool {
    match form {
        "Form::Bool" => PLAIN_BOOLS.contains(&name),
        "Form::Int32" | "Form::Int64" => {
            !POINTER_NUMBERS.contains(&name) || NO_POINTERS.contains(&(owner, name))
        }
        "Form::String" => !POINTER_TEXTS.contains(&(owner, name)),
        "Form::IntOrString" => PLAIN_INT_OR_STRINGS.contains(&(owner, name)),
        "Form::Bytes" => true,
        _ => false,
    }
}

/// The form of a message that is not an object in JSON.
fn leaf(schemas: &Schemas, messages: &BTreeMap<String, Message>, name: &str) -> Option<&'static str> {
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => return Some("Form::Quantity"),
        "IntOrString" => return Some("Form::IntOrString"),
        "Time" => return Some("Form::Time"),
        "MicroTime" => return Some("Form::MicroTime"),
        "RawExtension" | "FieldsV1" | "Json" => return Some("Form::Json"),
        _ => {}
    }
    let [only] = messages[name].fields.as_slice() else { return None };
    let is_list = only.name == "items" && only.label == Label::Repeated && only.scalar == "string";
    let is_object = schemas.find(name).is_some_and(|(_, schema)| schema["properties"]["items"].is_object());
    (is_list && !is_object).then_some("Form::Strings")
}
