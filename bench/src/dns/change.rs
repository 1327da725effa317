//! The way of a change from the API into an answer.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::time::Instant;

use super::{
    load,
    servers::{ControlPlane, Resolver},
};

/// How long one may take before the measurement gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes services one after the other and asks for each until it has an address; the clock starts when the request is
/// sent. Gives milliseconds, sorted.
pub(super) async fn measure(control: &ControlPlane, resolver: &Resolver, count: usize) -> Result<Vec<f64>> {
    let services: Api<Service> = Api::namespaced(control.client().await?, "default");
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(resolver.process.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("change-{number}");
        let body: Service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "ports": [{ "port": 80 }] },
        }))?;
        let question = format!("{name}.default.svc.cluster.local");
        ensure!(load::ask_on(&socket, &question)? == 0, "{question} exists already");
        let began = Instant::now();
        services.create(&PostParams::default(), &body).await?;
        while load::ask_on(&socket, &question)? == 0 {
            ensure!(began.elapsed() < PATIENCE, "{question} is not answered within {PATIENCE:?}");
            tokio::task::yield_now().await;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
