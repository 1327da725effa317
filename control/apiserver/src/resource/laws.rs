//! Laws over arbitrary objects: whatever passed the type check is defaulted, validated and printed without a panic.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    RESOURCES, Resource, check_types, default, prepare_for_create, prepare_for_update, prune, unknown_fields,
    validate,
};
use crate::table::{IncludeObject, table};

const NAMES: &[&str] = &[
    "addresses",
    "addressType",
    "annotations",
    "clusterIP",
    "conditions",
    "containerPort",
    "containers",
    "containerStatuses",
    "cpu",
    "data",
    "emptyDir",
    "endpoints",
    "env",
    "finalizers",
    "httpGet",
    "image",
    "initContainers",
    "initContainerStatuses",
    "labels",
    "limits",
    "livenessProbe",
    "matchExpressions",
    "matchLabels",
    "maxSurge",
    "metadata",
    "name",
    "namespace",
    "operator",
    "ownerReferences",
    "port",
    "ports",
    "replicas",
    "requests",
    "resources",
    "rollingUpdate",
    "selector",
    "spec",
    "state",
    "status",
    "strategy",
    "stringData",
    "taints",
    "targetPort",
    "template",
    "terminated",
    "tolerations",
    "type",
    "values",
    "volumeMounts",
    "volumes",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![Just("Always"), Just("1Gi"), Just("25%"), Just("None"), Just(""), Just("ä/ö")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            3 => prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// An object of a kind whose fields are of the right type: those that are not were taken out.
fn well_typed(resource: &Resource, fields: &[(&str, Value)]) -> Value {
    let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {}});
    for (name, value) in fields {
        let mut attempt = object.clone();
        attempt[*name] = value.clone();
        if check_types(resource, &attempt).is_ok() {
            object = attempt;
            continue;
        }
        // A part may still be of the right type.
        for (inner, value) in value.as_object().unwrap_or(&Map::new()) {
            let mut attempt = object.clone();
            if attempt[*name].is_null() {
                attempt[*name] = json!({});
            }
            attempt[*name][inner] = value.clone();
            if check_types(resource, &attempt).is_ok() {
                object = attempt;
            }
        }
    }
    prune(resource, &mut object);
    object
}

proptest! {
    #[test]
    fn an_object_of_the_right_types_is_never_too_odd(
        metadata in value(), spec in value(), status in value(), other in value(), before in value(),
    ) {
        let now = jiff::Timestamp::UNIX_EPOCH;
        for resource in RESOURCES {
            let fields = [("metadata", metadata.clone()), ("spec", spec.clone()), ("status", status.clone()),
                ("data", other.clone()), ("endpoints", other.clone())];
            let mut object = well_typed(resource, &fields);
            let mut old = well_typed(resource, &[("metadata", metadata.clone()), ("spec", before.clone())]);
            prop_assert_eq!(unknown_fields(resource, &object), Vec::<String>::new());
            prepare_for_create(resource, &mut old);
            for subresource in [None, Some("status"), Some("finalize")] {
                let mut new = object.clone();
                prepare_for_update(resource, &mut new, &old, subresource);
                validate(resource, &new, Some(&old));
                prop_assert_eq!(check_types(resource, &new), Ok(()));
            }
            prepare_for_create(resource, &mut object);
            validate(resource, &object, None);
            prop_assert_eq!(check_types(resource, &object), Ok(()));
            let once = object.clone();
            default(resource, &mut object);
            prop_assert_eq!(&object, &once);
            table(resource, &[object], now, IncludeObject::Metadata);
        }
    }

    #[test]
    fn a_table_can_be_made_of_anything(object in value()) {
        for resource in RESOURCES {
            table(resource, std::slice::from_ref(&object), jiff::Timestamp::UNIX_EPOCH, IncludeObject::Object);
        }
    }

    #[test]
    fn the_type_check_takes_anything(object in value()) {
        for resource in RESOURCES {
            let _ = check_types(resource, &object);
            prune(resource, &mut object.clone());
        }
    }
}
