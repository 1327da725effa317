//! What of a pod's spec a table cannot say.

use serde_json::Value;

use super::{Errors, items, text};
use crate::resource::error::FieldError;
use crate::resource::{path, pod_quality, quantity};

const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];

/// A probe has exactly one handler.
pub(super) fn probe(at: &str, probe: &Value, errors: &mut Errors) {
    handlers(at, probe, HANDLERS, errors);
}

/// A probe that restarts a container succeeds at once.
pub(super) fn restarting_probe(at: &str, probe: &Value, errors: &mut Errors) {
    if let Some(threshold) = probe.get("successThreshold").filter(|threshold| **threshold != 1) {
        errors.push(FieldError::invalid(format!("{at}.successThreshold"), threshold, "must be 1"));
    }
}

/// A lifecycle hook has exactly one handler.
pub(super) fn hook(at: &str, hook: &Value, errors: &mut Errors) {
    handlers(at, hook, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
}

fn handlers(at: &str, value: &Value, known: &[&str], errors: &mut Errors) {
    let mut given = known.iter().filter(|handler| value.get(**handler).is_some_and(|given| !given.is_null()));
    if given.next().is_none() {
        errors.push(FieldError::required(at, "must specify a handler type"));
    }
    for more in given {
        let detail = "may not specify more than 1 handler type";
        errors.push(FieldError::forbidden(format!("{at}.{more}"), detail));
    }
}

/// What is requested is within the limit.
pub(super) fn requests_within_limits(at: &str, resources: &Value, errors: &mut Errors) {
    let requests = resources.get("requests").and_then(Value::as_object);
    for (name, request) in requests.into_iter().flatten() {
        let Some(limit) = resources.get("limits").and_then(|limits| limits.get(name)) else { continue };
        let (Some(wanted), Some(allowed)) = (quantity::parse(request), quantity::parse(limit)) else {
            continue;
        };
        if wanted > allowed {
            let limit = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(format!("{at}.requests"), request, &detail));
        }
    }
}

/// Names are unique over all containers of the pod, host ports too, and mounts name volumes that exist.
pub(super) fn spec(at: &str, spec: &Value, errors: &mut Errors) {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let (mut names, mut host_ports) = (Vec::new(), Vec::new());
    let volumes: Vec<&str> = items(spec, "volumes").map(|(_, volume)| text(volume, "name")).collect();
    for list in lists {
        for (index, container) in items(spec, list) {
            let here = path::join(at, &format!("{list}[{index}]"));
            let name = text(container, "name");
            if !name.is_empty() && names.contains(&name) {
                errors.push(FieldError::duplicate(format!("{here}.name"), &Value::from(name)));
            }
            names.push(name);
            mounts(&here, container, &volumes, errors);
            for (index, port) in items(container, "ports") {
                let host = port.get("hostPort").and_then(Value::as_i64).filter(|host| *host != 0);
                let Some(host) = host.filter(|_| list == "containers") else { continue };
                let claim = (host, text(port, "protocol"), text(port, "hostIP"));
                if host_ports.contains(&claim) {
                    let value = format!("{}/{}/{}", claim.1, claim.2, claim.0);
                    let field = format!("{here}.ports[{index}].hostPort");
                    errors.push(FieldError::duplicate(field, &Value::from(value)));
                }
                host_ports.push(claim);
            }
        }
    }
}

fn mounts(at: &str, container: &Value, volumes: &[&str], errors: &mut Errors) {
    let mut paths = Vec::new();
    for (index, mount) in items(container, "volumeMounts") {
        let here = format!("{at}.volumeMounts[{index}]");
        let (name, mount_path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{here}.name"), ""));
        } else if !volumes.contains(&name) {
            errors.push(FieldError::not_found(format!("{here}.name"), &Value::from(name)));
        }
        if mount_path.is_empty() {
            errors.push(FieldError::required(format!("{here}.mountPath"), ""));
        } else if paths.contains(&mount_path) {
            let value = Value::from(mount_path);
            errors.push(FieldError::invalid(format!("{here}.mountPath"), &value, "must be unique"));
        }
        paths.push(mount_path);
    }
}

/// A volume has at most one source; defaulting has given it one if it had none.
pub(super) fn volume(at: &str, volume: &Value, errors: &mut Errors) {
    let sources = volume.as_object().into_iter().flatten();
    let sources = sources.filter(|(key, value)| *key != "name" && !value.is_null());
    for (source, _) in sources.skip(1) {
        let detail = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("{at}.{source}"), detail));
    }
}

/// A variable has a value or a source of one, not both.
pub(super) fn env(at: &str, env: &Value, errors: &mut Errors) {
    let Some(from) = env.get("valueFrom").and_then(Value::as_object) else { return };
    let here = format!("{at}.valueFrom");
    let sources = from.values().filter(|source| !source.is_null()).count();
    let shown = Value::Object(from.clone());
    if !text(env, "value").is_empty() {
        errors.push(FieldError::invalid(here, &shown, "may not be specified when `value` is not empty"));
    } else if sources == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.push(FieldError::invalid(here, &shown, detail));
    } else if sources > 1 {
        errors.push(FieldError::invalid(
            here,
            &shown,
            "may not have more than one field specified at a time",
        ));
    }
}

/// A pod may be resized, but not into another quality of service.
pub(super) fn resized(new: &Value, old: &Value, errors: &mut Errors) {
    if pod_quality(new) != pod_quality(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", &Value::from(pod_quality(new)), detail));
    }
}

/// Ephemeral containers are added, and then stay as they are.
pub(super) fn ephemeral_containers(new: &Value, old: &Value, errors: &mut Errors) {
    const AT: &str = "spec.ephemeralContainers";
    for (_, before) in items(old, AT) {
        let name = text(before, "name");
        match items(new, AT).find(|(_, container)| text(container, "name") == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(AT, &detail));
            }
            Some((_, now)) if now != before => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.push(FieldError::forbidden(AT, &detail));
            }
            Some(_) => {}
        }
    }
}

/// The operator, the key, the value and the seconds of a toleration fit together.
pub(super) fn toleration(at: &str, toleration: &Value, errors: &mut Errors) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    if key.is_empty() && operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(format!("{at}.operator"), &Value::from(operator), detail));
    }
    let value = text(toleration, "value");
    if operator == "Exists" && !value.is_empty() {
        let detail = "value must be empty when `operator` is 'Exists'";
        errors.push(FieldError::invalid(format!("{at}.operator"), toleration, detail));
    }
    let effect = text(toleration, "effect");
    if toleration.get("tolerationSeconds").is_some_and(|seconds| !seconds.is_null()) && effect != "NoExecute"
    {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(format!("{at}.effect"), &Value::from(effect), detail));
    }
}

/// With the policy `None` the pod says itself which servers to ask.
pub(super) fn dns(at: &str, spec: &Value, errors: &mut Errors) {
    if text(spec, "dnsPolicy") != "None" {
        return;
    }
    if items(spec, "dnsConfig.nameservers").next().is_none() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(path::join(at, "dnsConfig.nameservers"), detail));
    }
}
