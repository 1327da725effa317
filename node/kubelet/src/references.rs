//! ConfigMaps and Secrets that a pod refers to, read once before its containers are made.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, Client};

use crate::Error;

/// Keys and values.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// What was read; an absent object is absent here.
#[derive(Default, Debug)]
pub(crate) struct References {
    config_maps: BTreeMap<String, Data>,
    secrets: BTreeMap<String, Data>,
}

/// Names of the objects a pod refers to.
#[derive(Default, PartialEq, Eq, Debug)]
struct Names {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

impl References {
    /// Reads everything the pod refers to.
    pub(crate) async fn fetch(client: &Client, pod: &Pod) -> Result<Self, Error> {
        let names = names(pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let mut found = Self::default();
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for name in names.config_maps {
            let object = api
                .get_opt(&name)
                .await
                .map_err(Error::api("get", format!("configmap {namespace}/{name}")))?;
            if let Some(object) = object {
                let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
                let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
                found.config_maps.insert(name, text.chain(binary).collect());
            }
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        for name in names.secrets {
            let object =
                api.get_opt(&name).await.map_err(Error::api("get", format!("secret {namespace}/{name}")))?;
            if let Some(object) = object {
                let data = object.data.into_iter().flatten().map(|(key, value)| (key, value.0));
                found.secrets.insert(name, data.collect());
            }
        }
        Ok(found)
    }

    /// The ConfigMap's data; `None` when it is absent and optional.
    pub(crate) fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Option<&Data>, Error> {
        required(self.config_maps.get(name), "configmap", name, optional)
    }

    /// The Secret's data; `None` when it is absent and optional.
    pub(crate) fn secret(&self, name: &str, optional: Option<bool>) -> Result<Option<&Data>, Error> {
        required(self.secrets.get(name), "secret", name, optional)
    }

    #[cfg(test)]
    pub(crate) fn of(config_maps: &[(&str, &[(&str, &str)])], secrets: &[(&str, &[(&str, &str)])]) -> Self {
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
        };
        let all = |objects: &[(&str, &[(&str, &str)])]| {
            objects.iter().map(|(name, pairs)| ((*name).to_owned(), data(pairs))).collect()
        };
        Self { config_maps: all(config_maps), secrets: all(secrets) }
    }
}

fn required<'a>(
    data: Option<&'a Data>,
    what: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a Data>, Error> {
    if data.is_none() && optional != Some(true) {
        return Err(Error::unsupported(
            format!("{what} {name}"),
            "it does not exist in the pod's namespace: create it",
        ));
    }
    Ok(data)
}

fn names(pod: &Pod) -> Names {
    let mut names = Names::default();
    let Some(spec) = &pod.spec else { return names };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for source in container.env_from.iter().flatten() {
            names.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
            names.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            names.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
            names.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        names.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        names.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            names.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            names.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    names
}
