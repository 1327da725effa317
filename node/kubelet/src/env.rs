//! A container's environment: the image's, `envFrom`, `env` with its references, and `$(NAME)` expansion.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use crate::{Error, downward, downward::PodFacts, references::References};

/// All variables as `NAME=value`; later ones replace earlier ones of the same name.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    image_env: &[String],
    references: &References,
    facts: &PodFacts,
) -> Result<Variables, Error> {
    let mut variables = Variables::default();
    for variable in image_env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        variables.set(name, value.to_owned());
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        let data = match (&source.config_map_ref, &source.secret_ref) {
            (Some(reference), _) => references.config_map(&reference.name, reference.optional)?,
            (_, Some(reference)) => references.secret(&reference.name, reference.optional)?,
            _ => None,
        };
        for (name, value) in data.into_iter().flatten() {
            variables.set(&format!("{prefix}{name}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match referenced(pod, container, source, references, facts)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => variables.expand(value.as_deref().unwrap_or("")),
        };
        variables.set(&variable.name, value);
    }
    Ok(variables)
}

fn referenced(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    references: &References,
    facts: &PodFacts,
) -> Result<Option<String>, Error> {
    if let Some(field) = &source.field_ref {
        return downward::field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return downward::resource(pod, container, field).map(Some);
    }
    let (what, name, key, optional, data) = if let Some(key) = &source.config_map_key_ref {
        ("configmap", &key.name, &key.key, key.optional, references.config_map(&key.name, key.optional)?)
    } else if let Some(key) = &source.secret_key_ref {
        ("secret", &key.name, &key.key, key.optional, references.secret(&key.name, key.optional)?)
    } else {
        return Err(Error::unsupported(
            format!("container {}: env.valueFrom", container.name),
            "use fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef",
        ));
    };
    match data.and_then(|data| data.get(key)) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(Error::unsupported(format!("{what} {name}"), format!("it has no key {key}"))),
    }
}

/// Variables in the order they were first set.
#[derive(Default, Debug)]
pub(crate) struct Variables {
    order: Vec<String>,
    values: HashMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    /// Replaces `$(NAME)` by the variable, where it is set; `$$` is a dollar sign.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let reference = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
            match reference.and_then(|(name, after)| Some((self.values.get(name)?, after))) {
                Some((value, after)) => {
                    out.push_str(value);
                    rest = after;
                }
                None => out.push('$'),
            }
        }
        out.push_str(rest);
        out
    }

    /// As `NAME=value`.
    pub(crate) fn into_list(self) -> Vec<String> {
        let Self { order, values } = self;
        order.into_iter().map(|name| format!("{name}={}", values[&name])).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "echo-1", "namespace": "demo", "uid": "u", "labels": { "app": "echo" } },
            "spec": { "nodeName": "n1", "containers": [] } }))
        .unwrap()
    }

    #[test]
    fn references_and_expansion_see_what_came_before() {
        let container: Container = serde_json::from_value(json!({ "name": "c",
            "envFrom": [{ "prefix": "S_", "configMapRef": { "name": "settings" } }],
            "env": [
                { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                { "name": "APP", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "k" } } },
                { "name": "GONE", "valueFrom": { "secretKeyRef": { "name": "x", "key": "k", "optional": true } } },
                { "name": "ALL", "value": "$(POD)@$(NODE) $$(POD) $(NO) $(S_a)" } ] }))
        .unwrap();
        let references = References::of(
            [("settings", [("a", "1")].as_slice())].as_slice(),
            [("keys", [("k", "v")].as_slice())].as_slice(),
        );
        let facts = PodFacts::default();
        let list =
            environment(&pod(), &container, &["HOME=/".to_owned()], &references, &facts).unwrap().into_list();
        assert_eq!(
            list,
            ["HOME=/", "S_a=1", "POD=echo-1", "NODE=n1", "APP=echo", "KEY=v", "ALL=echo-1@n1 $(POD) $(NO) 1"]
        );
    }

    #[test]
    fn a_missing_secret_is_named() {
        let container: Container = serde_json::from_value(json!({ "name": "c", "env": [
            { "name": "K", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "k" } } } ] }))
        .unwrap();
        let references = References::default();
        let error = environment(&pod(), &container, &[], &references, &PodFacts::default()).unwrap_err();
        assert!(error.to_string().contains("secret keys"), "{error}");
    }
}
