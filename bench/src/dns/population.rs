//! The cluster that is asked about.

use std::net::Ipv4Addr;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, api::PostParams};
use serde_json::json;

use super::servers::ControlPlane;
use crate::screen::Step;

/// Namespaces that the services are spread over.
const NAMESPACES: usize = 10;
/// Requests at a time.
const REQUESTS: usize = 64;

/// How many of what.
pub(super) struct Population {
    pub(super) services: usize,
    pub(super) endpoints: usize,
}

impl Default for Population {
    fn default() -> Self {
        Self { services: 10_000, endpoints: 10 }
    }
}

impl Population {
    /// The names of all services.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.services).map(name)
    }

    pub(super) fn last_name(&self) -> String {
        name(self.services - 1)
    }

    /// Names with their addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (String, Ipv4Addr)> {
        (0..self.services).map(|index| (name(index), address(index)))
    }

    /// Makes everything through the API.
    pub(super) async fn create(&self, control: &ControlPlane, step: &Step) -> Result<()> {
        let client = control.client().await?;
        for index in 0..NAMESPACES {
            let body: Namespace =
                serde_json::from_value(json!({ "metadata": { "name": namespace(index) } }))?;
            Api::all(client.clone()).create(&PostParams::default(), &body).await?;
        }
        let mut made = 0;
        let making = stream::iter(0..self.services).map(|index| self.create_service(client.clone(), index));
        let mut making = making.buffer_unordered(REQUESTS);
        while making.try_next().await?.is_some() {
            made += 1;
            if made % 100 == 0 {
                step.note(format!("{made}"));
            }
        }
        Ok(())
    }

    async fn create_service(&self, client: kube::Client, index: usize) -> Result<()> {
        let namespace = namespace(index);
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": format!("svc-{index}") },
            "spec": { "clusterIP": address(index), "ports": [{ "name": "http", "port": 80 }] },
        }))?;
        let endpoints: Vec<_> = (0..self.endpoints)
            .map(|number| {
                json!({
                    "addresses": [pod_address(index * self.endpoints + number)],
                    "conditions": { "ready": true },
                    "nodeName": format!("node-{}", number % 3),
                    "targetRef": { "kind": "Pod", "namespace": namespace, "name": format!("svc-{index}-{number}") },
                })
            })
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "name": format!("svc-{index}-1"),
                "labels": { "kubernetes.io/service-name": format!("svc-{index}") },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": endpoints,
        }))?;
        Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &service).await?;
        Api::namespaced(client, &namespace).create(&PostParams::default(), &slice).await?;
        Ok(())
    }
}

fn namespace(index: usize) -> String {
    format!("bench-{}", index % NAMESPACES)
}

fn name(index: usize) -> String {
    format!("svc-{index}.{}.svc.cluster.local", namespace(index))
}

/// Of the service network, above what the control plane takes for itself.
fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 16, 0)) + u32::try_from(index).unwrap_or(0))
}

fn pod_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + u32::try_from(index).unwrap_or(0))
}
