//! The kinds that came after the first ones: what is wrong with them, in upstream's words.

use super::*;

/// A kind, an object that is valid, and a change to it with what is then said.
type Row = (&'static str, &'static str, Value, &'static [(&'static str, &'static str, &'static str)]);

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always"},
    })
}

fn ending() -> Value {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    template
}

#[expect(clippy::too_many_lines, reason = "a table of rows")]
fn rows() -> Vec<Row> {
    let selector = json!({"matchLabels": {"app": "x"}});
    let workload = json!({"spec": {"serviceName": "s", "selector": selector, "template": template(), "updateStrategy": {}}});
    vec![
        (
            "apps",
            "statefulsets",
            workload.clone(),
            &[
                (
                    "/spec/selector",
                    "{}",
                    "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
                ),
                (
                    "/spec/podManagementPolicy",
                    "\"No\"",
                    "spec.podManagementPolicy: Invalid value: \"No\": must be 'OrderedReady' or 'Parallel'",
                ),
                (
                    "/spec/updateStrategy/type",
                    "\"No\"",
                    "spec.updateStrategy.type: Invalid value: \"No\": must be 'RollingUpdate' or 'OnDelete'",
                ),
                (
                    "/spec/replicas",
                    "-1",
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                ),
            ],
        ),
        (
            "apps",
            "daemonsets",
            workload,
            &[
                (
                    "/spec/updateStrategy/rollingUpdate",
                    "{\"maxUnavailable\": 0}",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when `maxSurge` is 0",
                ),
                (
                    "/spec/template/spec/restartPolicy",
                    "\"Never\"",
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ),
            ],
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"parallelism": 2, "template": ending()}}),
            &[
                (
                    "/spec/template/spec/restartPolicy",
                    "\"Always\"",
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ),
                (
                    "/spec/completionMode",
                    "\"Indexed\"",
                    "spec.completions: Required value: when completion mode is Indexed",
                ),
                (
                    "/spec/parallelism",
                    "-1",
                    "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                ),
            ],
        ),
        (
            "batch",
            "cronjobs",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": ending()}}}}),
            &[
                (
                    "/spec/schedule",
                    "\"x\"",
                    "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]",
                ),
                (
                    "/spec/timeZone",
                    "\"Mars/Base\"",
                    "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
                ),
                (
                    "/spec/concurrencyPolicy",
                    "\"No\"",
                    "spec.concurrencyPolicy: Unsupported value: \"No\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ),
                (
                    "/spec/jobTemplate/spec/template/spec/containers/0/image",
                    "\"\"",
                    "spec.jobTemplate.spec.template.spec.containers[0].image: Required value",
                ),
                (
                    "/metadata/name",
                    "\"a123456789a123456789a123456789a123456789a123456789abc\"",
                    "metadata.name: Invalid value: \"a123456789a123456789a123456789a123456789a123456789abc\": \
                 must be no more than 52 characters",
                ),
            ],
        ),
        (
            "policy",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
            &[
                (
                    "/spec/minAvailable",
                    "\"x\"",
                    "spec.minAvailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an \
                 ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ),
                (
                    "/spec",
                    "{\"minAvailable\": 1, \"maxUnavailable\": 1}",
                    "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be \
                 both set",
                ),
            ],
        ),
        (
            "",
            "resourcequotas",
            json!({"spec": {"hard": {"pods": "1"}}}),
            &[
                (
                    "/spec/hard",
                    "{\"apples\": \"1\"}",
                    "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
                ),
                (
                    "/spec/hard",
                    "{\"pods\": \"-1\"}",
                    "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
                ),
            ],
        ),
        (
            "",
            "limitranges",
            json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]}}),
            &[
                (
                    "/spec/limits/0/min",
                    "{\"cpu\": \"3\"}",
                    "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
                ),
                ("/spec/limits/1", "{\"type\": \"Pod\"}", "spec.limits[1].type: Duplicate value: \"Pod\""),
                (
                    "/spec/limits/0/default",
                    "{\"cpu\": \"1\"}",
                    "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                ),
            ],
        ),
        (
            "networking.k8s.io",
            "ingresses",
            json!({"spec": {"rules": [{"host": "a.b", "http": {"paths": [{
            "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
            &[
                (
                    "/spec",
                    "{}",
                    "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified",
                ),
                (
                    "/spec/rules/0/host",
                    "\"10.0.0.1\"",
                    "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                ),
                (
                    "/spec/rules/0/http/paths/0/pathType",
                    "null",
                    "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
                ),
                (
                    "/spec/rules/0/http/paths/0/path",
                    "\"a\"",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
                ),
                (
                    "/spec/rules/0/http/paths/0/backend/service/port",
                    "{}",
                    "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                ),
            ],
        ),
        (
            "networking.k8s.io",
            "networkpolicies",
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [{
            "ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}}),
            &[
                (
                    "/spec/ingress/0/from/0",
                    "{}",
                    "spec.ingress[0].from[0]: Required value: must specify a peer",
                ),
                (
                    "/spec/ingress/0/from/0/ipBlock/except",
                    "[\"11.0.0.0/8\"]",
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/8\": must be a strict subset of `cidr`",
                ),
                (
                    "/spec/ingress/0/ports/0/endPort",
                    "79",
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
                ),
            ],
        ),
        (
            "rbac.authorization.k8s.io",
            "clusterroles",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
            &[
                (
                    "/rules/0/verbs",
                    "[]",
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                ),
                (
                    "/rules/0/resources",
                    "[]",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ),
            ],
        ),
        (
            "scheduling.k8s.io",
            "priorityclasses",
            json!({"value": 5}),
            &[(
                "/value",
                "1000000001",
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            )],
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            &[
                (
                    "/spec/accessModes",
                    "[]",
                    "spec.accessModes: Required value: at least 1 access mode is required",
                ),
                ("/spec/resources", "{}", "spec.resources[storage]: Required value"),
            ],
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
            &[
                (
                    "/spec/ports/0/port",
                    "10250",
                    "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet",
                ),
                (
                    "/spec/loadBalancerSourceRanges",
                    "[\"x\"]",
                    "spec.loadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
                 2001:db8::/64)",
                ),
                (
                    "/spec/externalTrafficPolicy",
                    "\"No\"",
                    "spec.externalTrafficPolicy: Unsupported value: \"No\": supported values: \"Cluster\", \"Local\"",
                ),
                (
                    "/spec/healthCheckNodePort",
                    "30000",
                    "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and \
                 `externalTrafficPolicy` is 'Local'",
                ),
                (
                    "/spec/externalIPs",
                    "[\"127.0.0.1\"]",
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ),
                (
                    "/status",
                    "{\"loadBalancer\": {\"ingress\": [{\"ip\": \"10.0.0.1\", \"ipMode\": \"No\"}]}}",
                    "status.loadBalancer.ingress[0].ipMode: Unsupported value: \"No\": supported values: \"Proxy\", \"VIP\"",
                ),
                (
                    "/status",
                    "{\"loadBalancer\": {\"ingress\": [{\"hostname\": \"10.0.0.1\"}]}}",
                    "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                ),
            ],
        ),
        (
            "",
            "services",
            json!({"spec": {"ports": [{"port": 80}]}}),
            &[
                (
                    "/spec/externalTrafficPolicy",
                    "\"Local\"",
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ),
                (
                    "/spec/loadBalancerClass",
                    "\"a.b/c\"",
                    "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ),
                (
                    "/spec/loadBalancerSourceRanges",
                    "[\"10.0.0.0/8\"]",
                    "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ),
            ],
        ),
    ]
}

#[test]
fn the_further_kinds_are_refused_in_upstreams_words() {
    for (group, plural, valid, changes) in rows() {
        let resource = resource(group, plural);
        let mut object = valid.clone();
        object["metadata"] = json!({"name": "a"});
        if resource.namespaced {
            object["metadata"]["namespace"] = json!("d");
        }
        let kind = json!(resource.kind);
        assert_eq!(said(resource, &changed(resource, object.clone(), "/kind", &kind)), [""; 0], "{plural}");
        for (pointer, value, expected) in changes {
            let value = serde_json::from_str(value).unwrap();
            let object = changed(resource, object.clone(), pointer, &value);
            assert_eq!(said(resource, &object), [*expected], "{plural} {pointer} = {value}");
        }
    }
}

#[test]
fn an_autoscaler_scales_between_bounds() {
    let resource = find("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
    let mut scaler = json!({
        "metadata": {"name": "a", "namespace": "d"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "w"}, "minReplicas": 3, "maxReplicas": 2},
    });
    default(resource, &mut scaler);
    assert_eq!(scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let expected = "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`";
    assert_eq!(said(resource, &scaler), [expected]);
}
