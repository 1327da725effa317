//! Fuzz targets of everything that reads what clients send. As tests they run for a few seconds each; `cargo bolero test
//! fuzz::NAME -p fairlead-apiserver` lets one look for new paths through the code for as long as it is left alone.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::apply::{self, Writer};
use crate::patch::{self, PatchType};
use crate::protobuf;
use crate::resource::{RESOURCES, Resource, find, remove_nulls};
use crate::selector::{FieldSelector, LabelSelector};
use crate::verbs::list::parse_token;

/// How long a target runs as a test.
const TIME: Duration = Duration::from_secs(3);
const INPUT_LEN_MAX: usize = 512;

/// Names that mean something in objects and patches.
const NAMES: &[&str] = &[
    "metadata",
    "name",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "uid",
    "managedFields",
    "spec",
    "template",
    "selector",
    "matchLabels",
    "replicas",
    "containers",
    "initContainers",
    "image",
    "ports",
    "containerPort",
    "protocol",
    "env",
    "value",
    "volumes",
    "emptyDir",
    "strategy",
    "type",
    "rollingUpdate",
    "conditions",
    "status",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$setElementOrder/env",
    "$deleteFromPrimitiveList/finalizers",
    "a",
    "b",
    "a/b",
    "",
];
const TEXTS: &[&str] = &["a", "b", "TCP", "UDP", "delete", "replace", "merge", "Recreate", "1", ""];
const OPERATIONS: &[&str] = &["add", "remove", "replace", "move", "copy", "test"];
const PATHS: &[&str] =
    &["", "/spec", "/spec/containers/0", "/spec/containers/-", "/metadata/labels", "/a~1b", "/a", "/b/0"];

/// Makes values of whatever bytes there are: every input is an object, and a small change of it a small change.
struct Maker<'b>(std::slice::Iter<'b, u8>);

impl Maker<'_> {
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % limit
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth > 5 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(256)),
            3 | 4 => json!(self.one_of(TEXTS)),
            5 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => self.object(depth),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut object = Map::new();
        for _ in 0..self.below(5) {
            let name = self.one_of(NAMES).to_owned();
            object.insert(name, self.value(depth + 1));
        }
        Value::Object(object)
    }

    fn operation(&mut self) -> Value {
        let (op, path, from) = (self.one_of(OPERATIONS), self.one_of(PATHS), self.one_of(PATHS));
        json!({ "op": op, "path": path, "from": from, "value": self.value(3) })
    }
}

fn deployments() -> &'static Resource {
    find("apps", "v1", "deployments").expect("the kind has a row")
}

fn fuzz(target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    bolero::check!().with_test_time(TIME).with_max_len(INPUT_LEN_MAX).for_each(|input| target(input));
}

#[test]
fn protobuf_reads_any_bytes_and_what_it_reads_it_writes() {
    fuzz(|input| {
        let (kind, raw) = input.split_first().map_or((0, input), |(kind, raw)| (usize::from(*kind), raw));
        let resource = &RESOURCES[kind % RESOURCES.len()];
        let body = protobuf::tests::body(&resource.api_version(), resource.kind, raw);
        if let Ok(object) = protobuf::decode(&body)
            && let Ok(written) = protobuf::encode(&object)
        {
            assert_eq!(protobuf::decode(&written).expect("it was written here"), object);
        }
    });
}

#[test]
fn a_json_patch_applies_or_says_why_not() {
    fuzz(|input| {
        let mut maker = Maker(input.iter());
        let live = maker.object(0);
        let operations: Value = (0..maker.below(8)).map(|_| maker.operation()).collect();
        let _ = patch::apply(deployments(), PatchType::Json, &live, &operations);
    });
}

#[test]
fn a_strategic_merge_patch_applies_or_says_why_not() {
    fuzz(|input| {
        let mut maker = Maker(input.iter());
        let (live, change) = (maker.object(0), maker.object(0));
        for kind in [PatchType::Strategic, PatchType::Merge] {
            let _ = patch::apply(deployments(), kind, &live, &change);
        }
    });
}

#[test]
fn what_is_applied_twice_changes_once() {
    fuzz(|input| {
        let mut maker = Maker(input.iter());
        let (mut live, mut config) = (maker.object(0), maker.object(0));
        // When an object comes so far, nulls, which mean that there is nothing, are gone, and it has its metadata.
        for object in [&mut live, &mut config] {
            remove_nulls(object);
            if !object["metadata"].is_object() {
                object["metadata"] = json!({});
            }
        }
        let time = "2026-01-01T00:00:00Z";
        let write = Writer { resource: deployments(), subresource: None, manager: "fuzz", time };
        let Ok(once) = apply::apply(write, Some(&live), &config, true) else { return };
        let twice = apply::apply(write, Some(&once), &config, true).expect("it was applied before");
        assert_eq!(twice, once);
    });
}

#[test]
fn a_selector_that_is_read_is_read_again_from_what_it_prints() {
    const LETTERS: &[u8] = b"abz09-_./,=! ()<>\\\"inotexsa";
    fuzz(|input| {
        let text: String =
            input.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect();
        let _ = FieldSelector::parse(deployments(), &text);
        if let Ok(selector) = LabelSelector::parse(&text) {
            assert_eq!(LabelSelector::parse(&selector.to_string()).expect("it printed that"), selector);
        }
    });
}

#[test]
fn a_continue_token_is_one_of_ours_or_none() {
    fuzz(|input| {
        let _ = parse_token(&String::from_utf8_lossy(input));
        let _ = parse_token(&URL_SAFE_NO_PAD.encode(input));
    });
}
