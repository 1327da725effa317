//! The ports of the nodes that a Service gets (upstream `registry/core/service/storage/alloc.go`).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::claims::{Claim, Claims};
use super::{Full, ServiceAddresses, Unplanned};
use crate::resource::FieldError;

impl ServiceAddresses {
    /// Gives the ports of a Service their node ports, and takes and releases what changes for that.
    pub(super) fn plan_node_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        claims: &mut Claims,
    ) -> Result<(), Unplanned> {
        let had: HashSet<u16> = old.map(node_ports_of).into_iter().flatten().collect();
        let mut has = HashSet::new();
        if has_node_ports(service) {
            if let Some(old) = old.filter(|old| has_node_ports(old)) {
                carry_over(&mut service["spec"], &old["spec"]);
            }
            self.ports(&mut service["spec"], &had, &mut has, claims)?;
        }
        if needs_health_check(service) {
            let old = old.filter(|old| needs_health_check(old));
            self.health_check(&mut service["spec"], old, &mut has, claims)?;
        }
        claims.release(had.difference(&has).map(|port| Claim::NodePort(*port)));
        Ok(())
    }

    fn ports(
        &self,
        spec: &mut Value,
        had: &HashSet<u16>,
        has: &mut HashSet<u16>,
        claims: &mut Claims,
    ) -> Result<(), Unplanned> {
        let unasked = spec["type"] == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
        let count = spec["ports"].as_array().map_or(0, Vec::len);
        // First those that were named: an unnamed one may share the number of its sibling of another protocol.
        for index in 0..count {
            let number = &spec["ports"][index]["nodePort"];
            let Some(port) = port_of(number) else { continue };
            if !had.contains(&port) && !has.contains(&port) {
                self.take_asked(port, &format!("spec.ports[{index}].nodePort"), number, claims)?;
            }
            has.insert(port);
        }
        for index in 0..count {
            if !unasked || port_of(&spec["ports"][index]["nodePort"]).is_some() {
                continue;
            }
            let port = match sibling(&spec["ports"], index) {
                Some(port) => port,
                None => self.next_port(claims)?,
            };
            has.insert(port);
            spec["ports"][index]["nodePort"] = json!(port);
        }
        Ok(())
    }

    fn health_check(
        &self,
        spec: &mut Value,
        old: Option<&Value>,
        has: &mut HashSet<u16>,
        claims: &mut Claims,
    ) -> Result<(), Unplanned> {
        let before = old.and_then(|old| port_of(&old["spec"]["healthCheckNodePort"]));
        let asked = port_of(&spec["healthCheckNodePort"]);
        let port = match (asked, before) {
            (None, Some(before)) => before,
            (None, None) => self.next_port(claims)?,
            (Some(asked), before) => {
                if Some(asked) != before {
                    let field = "spec.healthCheckNodePort";
                    self.take_asked(asked, field, &spec["healthCheckNodePort"], claims)?;
                }
                asked
            }
        };
        has.insert(port);
        spec["healthCheckNodePort"] = json!(port);
        Ok(())
    }

    fn take_asked(
        &self,
        port: u16,
        field: &str,
        value: &Value,
        claims: &mut Claims,
    ) -> Result<(), Vec<FieldError>> {
        if !self.node_ports.contains(port) {
            let range = self.node_ports;
            let detail =
                format!("provided port is not in the valid range. The range of valid ports is {range}");
            return Err(vec![FieldError::invalid(field, value, &detail)]);
        }
        let refusal = FieldError::invalid(field, value, "provided port is already allocated");
        if claims.takes(Claim::NodePort(port)) {
            return Err(vec![refusal]);
        }
        claims.take_asked(Claim::NodePort(port), refusal);
        Ok(())
    }

    /// Any free port, those outside the static band first.
    fn next_port(&self, claims: &mut Claims) -> Result<u16, Full> {
        let (all, first) = (self.node_ports.all(), self.node_ports.first_dynamic());
        let start = rand::random_range(first..=*all.end());
        let candidates = (start..=*all.end()).chain(first..start).chain(*all.start()..first);
        let free = self.known.first_free(candidates.map(Claim::NodePort), claims);
        let Some(Claim::NodePort(port)) = free else {
            return Err(Full(FieldError::internal(
                "spec.ports",
                "failed to allocate a nodePort: range is full",
            )));
        };
        claims.take(Claim::NodePort(port));
        Ok(port)
    }
}

/// Every port of the nodes that a Service has.
pub(super) fn node_ports_of(service: &Value) -> Vec<u16> {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().into_iter().flatten();
    let mut all: Vec<u16> = ports.filter_map(|port| port_of(&port["nodePort"])).collect();
    all.extend(port_of(&spec["healthCheckNodePort"]));
    all.sort_unstable();
    all.dedup();
    all
}

fn has_node_ports(service: &Value) -> bool {
    matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

/// Whether load balancers ask the nodes if they have an endpoint.
fn needs_health_check(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn port_of(number: &Value) -> Option<u16> {
    number.as_u64().filter(|number| *number > 0).and_then(|number| u16::try_from(number).ok())
}

/// The number of a port that is the same but for its protocol.
fn sibling(ports: &Value, index: usize) -> Option<u16> {
    let port = &ports[index];
    let mut others = ports.as_array()?.iter();
    others.find_map(|other| {
        let alike = other["port"] == port["port"] && other["protocol"] != port["protocol"];
        alike.then(|| port_of(&other["nodePort"])).flatten()
    })
}

/// A port that names no number keeps the one it had, unless another port asks for that.
fn carry_over(spec: &mut Value, old: &Value) {
    let named: Vec<u16> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| port_of(&port["nodePort"]))
        .collect();
    let before = old["ports"].as_array().into_iter().flatten();
    let before: Vec<&Value> = before.filter(|port| port_of(&port["nodePort"]).is_some()).collect();
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if port_of(&port["nodePort"]).is_some() {
            continue;
        }
        let same =
            before.iter().find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
        if let Some(number) = same.map(|old| &old["nodePort"])
            && !port_of(number).is_some_and(|number| named.contains(&number))
        {
            port["nodePort"] = number.clone();
        }
    }
}
