//! Kinds that are stored as another kind: events of `events.k8s.io/v1` as core events, autoscalers of `v1` as those of
//! `v2`.

use serde_json::{Map, Value};

use super::Resource;

mod autoscaler;

pub(crate) use autoscaler::AUTOSCALERS;

/// The two directions.
#[derive(Debug)]
pub(crate) struct Conversion {
    to_storage: fn(Value) -> Value,
    from_storage: fn(Value) -> Value,
}

/// The object as it is stored.
pub fn to_storage(resource: &Resource, object: Value) -> Value {
    match &resource.strategy.conversion {
        Some(conversion) => (conversion.to_storage)(object),
        None => object,
    }
}

/// The stored object as this kind.
pub fn from_storage(resource: &Resource, stored: Value) -> Value {
    match &resource.strategy.conversion {
        Some(conversion) => (conversion.from_storage)(stored),
        None => stored,
    }
}

/// `events.k8s.io/v1` events, stored as core events (upstream `pkg/apis/events/v1/conversion.go`).
pub(crate) const EVENTS: Conversion = Conversion { to_storage: to_core_event, from_storage: from_core_event };

/// Names of one and the same field: in `events.k8s.io/v1` and in the core group.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_core_event(event: Value) -> Value {
    renamed(event, "v1", |name| {
        EVENT_FIELDS.iter().find(|(new, _)| *new == name).map_or(name, |(_, core)| core)
    })
}

fn from_core_event(event: Value) -> Value {
    renamed(event, "events.k8s.io/v1", |name| {
        EVENT_FIELDS.iter().find(|(_, core)| *core == name).map_or(name, |(new, _)| new)
    })
}

fn renamed(event: Value, api_version: &str, rename: fn(&str) -> &str) -> Value {
    let Value::Object(fields) = event else { return event };
    let mut renamed: Map<String, Value> =
        fields.into_iter().map(|(name, value)| (rename(&name).to_owned(), value)).collect();
    renamed.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(renamed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_survives_the_way_to_storage_and_back() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
            "regarding": {"kind": "Pod", "name": "p"}, "note": "pulled", "reason": "Pulled", "type": "Normal",
            "reportingController": "kubelet", "reportingInstance": "n1", "action": "Pulling",
            "eventTime": "2026-01-01T00:00:00.000000Z", "series": {"count": 2},
            "deprecatedSource": {"component": "kubelet"}, "deprecatedCount": 3,
        });
        let core = to_core_event(event.clone());
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(core["message"], "pulled");
        assert_eq!(core["reportingComponent"], "kubelet");
        assert_eq!(core["source"]["component"], "kubelet");
        assert_eq!(core["count"], 3);
        assert_eq!(from_core_event(core), event);
    }
}
