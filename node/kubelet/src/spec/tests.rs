//! Tables over the runtime specification.

use super::*;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn container(value: Value) -> Container {
    serde_json::from_value(value).unwrap()
}

fn spec_of(pod: Value, container_value: Value) -> Value {
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let container = container(container_value);
    build(&SpecInput {
        pod: &pod,
        container: &container,
        image: &Defaults::default(),
        user: &User::default(),
        env: strings(&["A=1"]),
        args: strings(&["/bin/true"]),
        mounts: vec![],
        hostname: "echo",
        netns: Path::new("/run/netns/echo"),
        cgroups_path: "/fairlead/n1/pod1/c".into(),
        pids_limit: Some(100),
    })
}

#[test]
fn a_command_replaces_entrypoint_and_arguments_but_arguments_only_themselves() {
    let image = Defaults {
        entrypoint: Some(strings(&["/entry"])),
        cmd: Some(strings(&["default"])),
        ..Defaults::default()
    };
    for (value, expected) in [
        (json!({ "name": "c" }), vec!["/entry", "default"]),
        (json!({ "name": "c", "args": ["a"] }), vec!["/entry", "a"]),
        (json!({ "name": "c", "command": ["/cmd"] }), vec!["/cmd"]),
        (json!({ "name": "c", "command": ["/cmd"], "args": ["a"] }), vec!["/cmd", "a"]),
    ] {
        assert_eq!(arguments(&container(value.clone()), &image), strings(&expected), "{value}");
    }
}

#[test]
fn a_pod_joins_its_network_namespace_and_has_its_own_others() {
    let spec = spec_of(json!({ "spec": { "containers": [] } }), json!({ "name": "c" }));
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    let kinds: Vec<_> = namespaces.iter().map(|n| n["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["mount", "network", "pid", "ipc", "uts"]);
    assert_eq!(namespaces[1]["path"], "/run/netns/echo");
    assert_eq!(spec["hostname"], "echo");
}

#[test]
fn a_pod_on_the_host_network_keeps_the_hosts_name() {
    let spec = spec_of(json!({ "spec": { "containers": [], "hostNetwork": true } }), json!({ "name": "c" }));
    assert!(spec.get("hostname").is_none());
    assert!(!spec["linux"]["namespaces"].to_string().contains("uts"));
}

#[test]
fn security_settings_reach_the_process() {
    let spec = spec_of(
        json!({ "spec": { "containers": [] } }),
        json!({ "name": "c", "securityContext": {
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] } } }),
    );
    assert_eq!(spec["root"]["readonly"], true);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_NET_ADMIN"]));
}

#[test]
fn a_path_is_added_only_when_none_is_given() {
    let spec = spec_of(json!({ "spec": { "containers": [] } }), json!({ "name": "c" }));
    assert_eq!(spec["process"]["env"], json!([DEFAULT_PATH, "A=1"]));
}
