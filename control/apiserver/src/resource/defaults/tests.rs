use serde_json::json;

use super::*;
use crate::resource::{RESOURCES, find};

fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    let resource = find(group, "v1", plural).expect("the kind has a row");
    default(resource, &mut object);
    let once = object.clone();
    default(resource, &mut object);
    assert_eq!(once, object, "defaulting twice is defaulting once");
    object
}

#[test]
fn a_minimal_pod_gets_what_upstream_gives_it() {
    let pod = defaulted(
        "",
        "pods",
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{
            "name": "c", "image": "nginx:1.27",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "readinessProbe": {"httpGet": {"port": 80}},
            "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 3},
            "resources": {"limits": {"cpu": 1, "memory": "64Mi"}, "requests": {"cpu": "500m"}},
        }]}}),
    );
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "c", "image": "nginx:1.27", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}}],
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "livenessProbe": {"tcpSocket": {"port": 80},
                    "timeoutSeconds": 1, "periodSeconds": 3, "successThreshold": 1, "failureThreshold": 3},
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
            "serviceAccountName": "default", "serviceAccount": "default",
        })
    );
}

#[test]
fn what_is_set_stays() {
    let spec = json!({
        "containers": [{"name": "c", "image": "x", "imagePullPolicy": "Never", "resources": {}}],
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
        "tolerations": [{"operator": "Exists"}],
    });
    let pod = defaulted("", "pods", json!({"spec": spec}));
    for field in ["restartPolicy", "terminationGracePeriodSeconds", "enableServiceLinks", "tolerations"] {
        assert_eq!(pod["spec"][field], spec[field], "{field}");
    }
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[test]
fn the_pull_policy_follows_the_tag() {
    let rows = [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/team/app", "Always"),
        ("registry:5000/team/app:v1", "IfNotPresent"),
        ("app@sha256:0123", "IfNotPresent"),
        ("app:latest@sha256:0123", "IfNotPresent"),
    ];
    for (image, expected) in rows {
        let pod = defaulted("", "pods", json!({"spec": {"containers": [{"image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], expected, "{image}");
    }
}

#[test]
fn volumes_and_the_hosts_network_have_their_defaults() {
    let pod = defaulted(
        "",
        "pods",
        json!({"spec": {
            "hostNetwork": true,
            "containers": [{"ports": [{"containerPort": 80}]}],
            "volumes": [
                {"name": "a"},
                {"name": "b", "configMap": {"name": "x"}},
                {"name": "c", "secret": {"secretName": "x", "defaultMode": 256}},
                {"name": "d", "hostPath": {"path": "/x"}},
                {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            ],
        }}),
    );
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    assert_eq!(
        pod["spec"]["volumes"],
        json!([
            {"name": "a", "emptyDir": {}},
            {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
            {"name": "c", "secret": {"secretName": "x", "defaultMode": 256}},
            {"name": "d", "hostPath": {"path": "/x", "type": ""}},
            {"name": "e", "projected": {"defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
        ])
    );
}

#[test]
fn a_deployment_and_its_template_get_defaults_but_no_pod_admission() {
    let deployment = defaulted(
        "apps",
        "deployments",
        json!({"spec": {"template": {"spec": {"containers": [{"image": "x:1"}]}}}}),
    );
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    assert_eq!(spec["strategy"], rolling);
    let template = &spec["template"]["spec"];
    assert_eq!(template["restartPolicy"], "Always");
    assert_eq!(template["containers"][0]["imagePullPolicy"], "IfNotPresent");
    for field in ["tolerations", "priority", "enableServiceLinks", "serviceAccountName"] {
        assert!(template.get(field).is_none(), "{field} is for pods only");
    }
    let recreate = defaulted("apps", "deployments", json!({"spec": {"strategy": {"type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn the_other_kinds_get_theirs() {
    let rows = [
        (
            ("", "services"),
            json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}}),
            json!({"metadata": {}, "spec": {
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80},
                    {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}}),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
            json!({"metadata": {}, "spec": {
                "type": "LoadBalancer", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}},
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                "allocateLoadBalancerNodePorts": true}}),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
            json!({"metadata": {}, "spec": {
                "type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}}),
        ),
        (
            ("", "namespaces"),
            json!({"metadata": {"name": "n", "labels": {"a": "b"}}}),
            json!({"metadata": {"name": "n", "labels": {"a": "b", "kubernetes.io/metadata.name": "n"}},
                "spec": {}, "status": {"phase": "Active"}}),
        ),
        (
            ("", "secrets"),
            json!({"data": {"a": "MQ==", "b": "MQ=="}, "stringData": {"b": "2", "c": "3"}}),
            json!({"metadata": {}, "type": "Opaque", "data": {"a": "MQ==", "b": "Mg==", "c": "Mw=="}}),
        ),
        (
            ("", "nodes"),
            json!({"status": {"capacity": {"cpu": "4"}}}),
            json!({"metadata": {}, "spec": {}, "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}}}),
        ),
        (
            ("discovery.k8s.io", "endpointslices"),
            json!({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
            json!({"metadata": {}, "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}],
                "ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
        ),
        (("coordination.k8s.io", "leases"), json!({"spec": {}}), json!({"metadata": {}, "spec": {}})),
    ];
    for ((group, plural), object, expected) in rows {
        assert_eq!(defaulted(group, plural, object), expected, "{plural}");
    }
}

#[test]
fn defaulting_never_makes_a_field_its_kind_does_not_have() {
    for resource in RESOURCES {
        let mut object = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": "a"},
        });
        default(resource, &mut object);
        assert_eq!(crate::resource::unknown_fields(resource, &object), [""; 0], "{}", resource.kind);
    }
}
