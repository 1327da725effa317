//! Messages made up from the field table must be objects of the types of `k8s-openapi`, without a field too many.

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as scaling, autoscaling::v2 as autoscaling,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flow, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// Reads an object as its type and writes it again.
type Retype = fn(&Value) -> Result<Value, serde_json::Error>;

fn retype<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

macro_rules! types {
    ($($module:ident::{$($kind:ident),+}),+ $(,)?) => {
        &[$($((stringify!($kind), retype::<$module::$kind> as Retype)),+),+]
    };
}

/// Kinds and their types; two kinds share the name `Event`, two `HorizontalPodAutoscaler`.
const TYPES: &[(&str, Retype)] = types![
    admission::{
        MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration
    },
    apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    authentication::{SelfSubjectReview, TokenRequest, TokenReview},
    authorization::{LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview},
    scaling::{Scale, HorizontalPodAutoscaler},
    autoscaling::{HorizontalPodAutoscaler},
    batch::{CronJob, Job},
    certificates::{CertificateSigningRequest},
    coordination::{Lease},
    core::{
        Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
        PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
        ServiceAccount
    },
    discovery::{EndpointSlice},
    events::{Event},
    flow::{FlowSchema, PriorityLevelConfiguration},
    networking::{Ingress, IngressClass, IPAddress, NetworkPolicy, ServiceCIDR},
    node::{RuntimeClass},
    policy::{Eviction, PodDisruptionBudget},
    rbac::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    scheduling::{PriorityClass},
    storage::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass},
    meta::{DeleteOptions, Status},
];

/// Makes up messages; the numbers decide.
struct Maker {
    state: u64,
}

impl Maker {
    fn below(&mut self, limit: u64) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
    }

    fn message(&mut self, message: &Message, depth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for field in message.fields {
            // Deep down the fields stay out, because some types hold themselves; the types insist on some times.
            let is_time = matches!(field.form, Form::Time | Form::MicroTime);
            if !is_time && (depth > 6 || self.below(4) == 0) {
                continue;
            }
            let times = if matches!(field.label, Label::Repeated | Label::Map) { self.below(3) } else { 1 };
            for _ in 0..times {
                let value = self.value(field, depth);
                let value = if field.label == Label::Map {
                    let entry = [bytes(1, format!("key-{}", self.below(9)).as_bytes()), value.at(2)].concat();
                    Made::Bytes(entry)
                } else {
                    value
                };
                out.extend(value.at(u64::from(field.number)));
            }
        }
        out
    }

    fn value(&mut self, field: &Field, depth: usize) -> Made {
        match field.form {
            Form::Bool => Made::Number(self.below(2)),
            Form::Int32 | Form::Int64 => Made::Number(self.below(70_000)),
            Form::String => Made::Bytes(format!("text {}", self.below(99)).into_bytes()),
            Form::Bytes => Made::Bytes(self.below(u64::MAX).to_le_bytes().to_vec()),
            Form::Message(number) => Made::Bytes(self.message(&MESSAGES[usize::from(number)], depth + 1)),
            Form::Quantity => Made::Bytes(bytes(1, b"250m")),
            Form::IntOrString if self.below(2) == 0 => {
                Made::Bytes([number(1, 0), number(2, 1 + self.below(70_000)), bytes(3, b"")].concat())
            }
            Form::IntOrString => Made::Bytes([number(1, 1), number(2, 0), bytes(3, b"25%")].concat()),
            Form::Time | Form::MicroTime => {
                Made::Bytes([number(1, self.below(2_000_000_000)), number(2, 0)].concat())
            }
            Form::Json => Made::Bytes(bytes(1, br#"{"a":{"b":[1,"2"]}}"#)),
            Form::Strings => Made::Bytes([bytes(1, b"one"), bytes(1, b"")].concat()),
        }
    }
}

/// A value that is not yet in a field.
enum Made {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Made {
    fn at(&self, field: u64) -> Vec<u8> {
        match self {
            Self::Number(value) => number(field, *value),
            Self::Bytes(content) => bytes(field, content),
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A whole body, as client-go writes it.
fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

/// What differs between an object and what its type made of it: missing or other fields. Defaults that a type adds
/// when it must have a value are none.
fn lost(object: &Value, typed: &Value, path: &str, out: &mut Vec<String>) {
    match (object, typed) {
        (Value::Object(object), Value::Object(typed)) => {
            for (key, value) in object {
                let path = format!("{path}.{key}");
                match typed.get(key) {
                    Some(typed) => lost(value, typed, &path, out),
                    None => out.push(path),
                }
            }
        }
        (Value::Array(object), Value::Array(typed)) if object.len() == typed.len() => {
            for (one, other) in object.iter().zip(typed) {
                lost(one, other, &format!("{path}[]"), out);
            }
        }
        (object, typed) if object == typed => {}
        // The types print no fraction of a second that is zero.
        (Value::String(object), Value::String(typed)) if object.replace(".000000Z", "Z") == *typed => {}
        (object, typed) => out.push(format!("{path}: {object} became {typed}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_kind_reads_as_its_type_without_a_field_too_many(seed: u64) {
        let mut maker = Maker { state: seed };
        for (api_version, kind, number) in KINDS {
            let types = TYPES.iter().filter(|(name, _)| name == kind);
            let raw = maker.message(&MESSAGES[usize::from(*number)], 0);
            let api_version = if *api_version == META { "v1" } else { api_version };
            let object = decode(&body(api_version, kind, &raw)).expect("a message made from the table");
            let mut failures = Vec::new();
            let mut fits = false;
            let mut known = false;
            for (_, retype) in types {
                known = true;
                let mut problems = Vec::new();
                match retype(&object) {
                    Ok(typed) => lost(&object, &typed, "", &mut problems),
                    Err(error) => problems.push(error.to_string()),
                }
                fits |= problems.is_empty();
                failures.push(problems);
            }
            prop_assert!(fits || !known, "{api_version} {kind}: {failures:?}\n{object}");
        }
    }

    #[test]
    fn every_kind_survives_the_way_to_protobuf_and_back(seed: u64) {
        let mut maker = Maker { state: seed };
        for (api_version, kind, number) in KINDS {
            let raw = maker.message(&MESSAGES[usize::from(*number)], 0);
            let object = decode(&body(api_version, kind, &raw)).expect("a message made from the table");
            let written = encode(&object).expect("it came from protobuf");
            prop_assert_eq!(decode(&written).expect("it was written by us"), object);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(raw: Vec<u8>, number in 0..KINDS.len()) {
        let (api_version, kind, _) = KINDS[number];
        let _ = decode(&body(api_version, kind, &raw));
        let _ = decode(&[MAGIC, &raw].concat());
    }
}

#[test]
fn every_kind_of_the_table_of_resources_has_a_message() {
    for resource in crate::resource::RESOURCES.iter().filter(|row| row.verbs.contains(&"create")) {
        assert!(find(&resource.api_version(), resource.kind).is_some(), "{}", resource.kind);
        assert!(
            TYPES.iter().any(|(kind, _)| *kind == resource.kind),
            "{} is compared with no type",
            resource.kind
        );
    }
    for (api_version, kind) in [("v1", "Binding"), ("policy/v1", "Eviction"), ("autoscaling/v1", "Scale")] {
        assert!(find(api_version, kind).is_some(), "{kind}");
    }
}

#[test]
fn options_may_come_under_any_version() {
    let raw = [number(1, 0), bytes(4, b"Background")].concat();
    let object = decode(&body("apps/v1", "DeleteOptions", &raw)).expect("the options are known");
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "propagationPolicy": "Background",
    });
    assert_eq!(object, expected);
}

/// Go writes what is no pointer even when it was never set; what is one says something when it is zero.
#[test]
fn zeros_that_nobody_set_are_left_out_and_those_that_say_something_stay() {
    let probe = [number(2, 0), number(3, 0), number(4, 0), number(5, 0), number(6, 0)].concat();
    let security = [number(2, 0), number(7, 0), number(4, 0)].concat();
    let container =
        [bytes(1, b"c"), bytes(2, b""), bytes(10, &probe), bytes(15, &security), number(16, 0)].concat();
    let spec = [bytes(2, &container), number(4, 0), bytes(10, b""), number(11, 0), number(21, 0)].concat();
    let metadata = [bytes(1, b"p"), bytes(2, b""), number(7, 0), bytes(8, b""), number(10, 0)].concat();
    let raw = [bytes(1, &metadata), bytes(2, &spec), bytes(3, b"")].concat();
    let pod = decode(&body("v1", "Pod", &raw)).expect("a pod");
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "p", "deletionGracePeriodSeconds": 0 },
        "spec": {
            "containers": [{
                "name": "c",
                "livenessProbe": {},
                "securityContext": { "privileged": false, "runAsUser": 0, "allowPrivilegeEscalation": false },
            }],
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
        },
        "status": {},
    });
    assert_eq!(pod, expected);
}

#[test]
fn what_is_no_message_is_refused_with_a_reason() {
    let deep = (0..400).fold(Vec::new(), |inner, _| bytes(2, &bytes(3, &inner)));
    let rows = [
        (b"{\"a\":1}".to_vec(), "four bytes"),
        (body("v1", "Gadget", b""), "no kind \"Gadget\" is registered for version \"v1\""),
        (body("v1", "Pod", &[0x0a, 0x05, 0x01]), "ends in the middle"),
        (body("v1", "Pod", &[0x0b]), "an unknown wire type"),
        (body("v1", "Pod", &number(1, 7)), "metadata: is of the wrong wire type"),
        (body("v1", "Pod", &bytes(1, &bytes(1, &[0xff]))), "field name: the text is not UTF-8"),
        ([MAGIC, &bytes(3, b"gzip")].concat(), "encoded as \"gzip\""),
        (body("apps/v1", "Deployment", &deep), ""),
    ];
    for (bytes, words) in rows {
        match decode(&bytes) {
            Err(error) => assert!(error.to_string().contains(words), "{error}"),
            Ok(object) => assert!(words.is_empty(), "{object}"),
        }
    }
}

/// Bytes of a body, field by field, as protoc's own tools would show them.
#[test]
fn lists_metadata_and_events_are_written_as_go_reads_them() {
    let map =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "a": "b" } });
    let list = json!({ "apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": { "resourceVersion": "7", "remainingItemCount": 2 }, "items": [map] });
    let item = [bytes(1, &bytes(1, b"m")), bytes(2, &[bytes(1, b"a"), bytes(2, b"b")].concat())].concat();
    let meta = [bytes(2, b"7"), number(4, 2)].concat();
    let raw = [bytes(1, &meta), bytes(2, &item)].concat();
    let head = |version: &str, kind: &str| {
        bytes(1, &[bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat())
    };
    let expected = [MAGIC.to_vec(), head("v1", "ConfigMapList"), bytes(2, &raw)].concat();
    assert_eq!(encode(&list).expect("a list"), expected);

    let partial = json!({ "kind": "PartialObjectMetadata", "metadata": { "name": "m" } });
    let raw = bytes(1, &bytes(1, b"m"));
    let expected = [MAGIC.to_vec(), head(META, "PartialObjectMetadata"), bytes(2, &raw)].concat();
    assert_eq!(encode_partial(&partial).expect("metadata"), expected);

    let mut frame = Vec::new();
    put_watch_event(&mut frame, "ADDED", b"object");
    let event = [bytes(1, b"ADDED"), bytes(2, &bytes(1, b"object"))].concat();
    assert_eq!(frame, [(event.len() as u32).to_be_bytes().to_vec(), event].concat());
}

#[test]
fn what_does_not_fit_its_type_is_not_written() {
    let rows = [
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": 7 } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "creationTimestamp": "yesterday" } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "spec": { "containers": {} } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "data": { "a": "no base64" } }),
        json!({ "apiVersion": "v1", "kind": "Gadget" }),
    ];
    for object in rows {
        assert!(encode(&object).is_err(), "{object}");
    }
}
