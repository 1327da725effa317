//! Service addresses and node ports: which are taken, and what a Service gets.
//!
//! What a Service gets is decided here and written together with the Service, as claims ([`claims`]). A random choice
//! that somebody else made first is made again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_store::{Store, StoreError};
use ipnet::IpNet;
use serde_json::{Value, json};

mod claims;
mod node_ports;
mod port_range;
mod repair;
mod transition;

pub(crate) use claims::{Claims, Lost};
pub use port_range::{PortRange, PortRangeError};
pub use repair::RepairError;
pub(crate) use repair::{repair, run};

use self::claims::{Claim, Known};
use crate::error::ApiError;
use crate::resource::{FieldError, Resource};

/// The allocator.
#[derive(Debug)]
pub(crate) struct ServiceAddresses {
    networks: Vec<IpNet>,
    node_ports: PortRange,
    known: Known,
}

/// As many addresses at the start of a network are left to those who ask for one by name (KEP-3070: a sixteenth of
/// the network, between 16 and 256).
const STATIC_BAND_MAX: u128 = 256;

/// Why a Service gets nothing.
enum Unplanned {
    /// Nothing is known to be free; the store may know better.
    Full(FieldError),
    Refused(Vec<FieldError>),
}

/// Nothing is known to be free.
struct Full(FieldError);

impl From<Full> for Unplanned {
    fn from(Full(error): Full) -> Self {
        Self::Full(error)
    }
}

impl From<Vec<FieldError>> for Unplanned {
    fn from(errors: Vec<FieldError>) -> Self {
        Self::Refused(errors)
    }
}

impl ServiceAddresses {
    pub(crate) fn new(networks: Vec<IpNet>, node_ports: PortRange) -> Self {
        Self { networks, node_ports, known: Known::default() }
    }

    /// Completes a Service's families, addresses and node ports; the claims must be written with it. Other kinds claim
    /// nothing.
    pub(crate) async fn plan(
        &self,
        store: &dyn Store,
        resource: &'static Resource,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Claims, ApiError> {
        if !has_addresses(resource) || !service["spec"].is_object() {
            return Ok(Claims::default());
        }
        let original = service.clone();
        let mut outcome = self.try_plan(service, old);
        if matches!(outcome, Err(Unplanned::Full(_))) {
            self.known.reload(store).await?;
            service.clone_from(&original);
            outcome = self.try_plan(service, old);
        }
        let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        outcome.map_err(|unplanned| match unplanned {
            Unplanned::Full(error) => ApiError::Invalid { resource, name, errors: vec![error] },
            Unplanned::Refused(errors) => ApiError::Invalid { resource, name, errors },
        })
    }

    /// What is given back when the Service goes.
    pub(crate) fn release(&self, resource: &Resource, service: &Value) -> Claims {
        let mut claims = Claims::default();
        if has_addresses(resource) {
            claims.release(claims_of(service));
        }
        claims
    }

    /// The claims are in the store.
    pub(crate) fn committed(&self, claims: &Claims) {
        if !claims.is_empty() {
            self.known.committed(claims);
        }
    }

    /// What it means that a write found this key; `None` when the key is none of the claims.
    pub(crate) fn lost(&self, claims: &Claims, key: &str) -> Option<Lost> {
        self.known.lost(claims, key)
    }

    /// Reads which claims there are.
    pub(crate) async fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.known.reload(store).await
    }

    fn try_plan(&self, service: &mut Value, old: Option<&Value>) -> Result<Claims, Unplanned> {
        let mut claims = Claims::default();
        if let Some(old) = old {
            transition::drop_what_the_type_has_not(service, old);
        }
        self.plan_addresses(service, old, &mut claims)?;
        self.plan_node_ports(service, old, &mut claims)?;
        Ok(claims)
    }

    fn plan_addresses(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        claims: &mut Claims,
    ) -> Result<(), Unplanned> {
        let before = old.map(addresses_of).unwrap_or_default();
        if let Some(old) = old {
            inherit(service, old)?;
        }
        let spec = &mut service["spec"];
        if spec["type"] == "ExternalName" {
            claims.release(before.into_iter().map(Claim::Address));
            return Ok(());
        }
        let asked = asked_addresses(spec);
        let headless = asked.first().is_some_and(|first| first == "None");
        let families = self.families(spec, &asked, headless)?;
        if headless {
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
            claims.release(before.into_iter().map(Claim::Address));
            return Ok(());
        }
        let mut addresses = Vec::new();
        for (index, network) in families.iter().enumerate() {
            let address = match asked.get(index) {
                Some(text) => claim(text, *network, &before, &asked, claims)?,
                None => self.next(*network, &asked, claims)?,
            };
            addresses.push(address);
        }
        let released = before.into_iter().filter(|address| !addresses.contains(address));
        claims.release(released.map(Claim::Address));
        spec["clusterIP"] = json!(addresses[0]);
        spec["clusterIPs"] = json!(addresses);
        Ok(())
    }

    /// Settles `ipFamilyPolicy` and `ipFamilies`; returns the network of each family.
    fn families(
        &self,
        spec: &mut Value,
        asked: &[String],
        headless: bool,
    ) -> Result<Vec<IpNet>, Vec<FieldError>> {
        let of = |name: &str| self.networks.iter().copied().find(|network| family(network) == name);
        let mut names: Vec<String> = texts(&spec["ipFamilies"]);
        if names.is_empty() {
            let asked = asked.iter().filter_map(|text| text.parse::<IpAddr>().ok());
            names = asked.map(|address| family_of(&address).to_owned()).collect();
        }
        let selectorless = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
        let policy = match spec["ipFamilyPolicy"].as_str() {
            Some(policy) => policy.to_owned(),
            None if names.len() == 2 => "RequireDualStack".to_owned(),
            // A headless Service without selector lists whatever its owner puts there.
            None if headless && selectorless && self.networks.len() == 2 => "RequireDualStack".to_owned(),
            None => "SingleStack".to_owned(),
        };
        if policy == "RequireDualStack" && self.networks.len() < 2 {
            let detail = "this cluster is not configured for dual-stack services";
            return Err(vec![FieldError::invalid("spec.ipFamilyPolicy", &json!(policy), detail)]);
        }
        if names.is_empty() {
            names.extend(self.networks.first().map(|network| family(network).to_owned()));
        }
        if policy == "SingleStack" {
            names.truncate(1);
        } else if names.len() == 1 {
            let other = self.networks.iter().map(family).find(|other| *other != names[0]);
            names.extend(other.map(str::to_owned));
        }
        let mut networks = Vec::new();
        for (index, name) in names.iter().enumerate() {
            networks.push(of(name).ok_or_else(|| {
                let detail = "not configured on this cluster";
                vec![FieldError::invalid(format!("spec.ipFamilies[{index}]"), &json!(name), detail)]
            })?);
        }
        spec["ipFamilies"] = json!(names);
        spec["ipFamilyPolicy"] = json!(policy);
        Ok(networks)
    }

    /// Takes any free address, those outside the static band first.
    fn next(&self, network: IpNet, asked: &[String], claims: &mut Claims) -> Result<IpAddr, Full> {
        let size = size(&network);
        let band = (size / 16).clamp(16, STATIC_BAND_MAX).min(size);
        let start = if size > band { band + rand::random::<u64>() as u128 % (size - band) } else { 1 };
        let candidates = (start..size).chain(band..start).chain(1..band);
        let candidates = candidates.map(|offset| Claim::Address(at(&network, offset)));
        let Some(Claim::Address(address)) = self.known.first_free(candidates, claims) else {
            let detail = format!("failed to allocate a serviceIP: range {network} is full");
            return Err(Full(FieldError::invalid("spec.clusterIPs", &json!(asked), &detail)));
        };
        claims.take(Claim::Address(address));
        Ok(address)
    }
}

/// Takes the address that was asked for.
fn claim(
    text: &str,
    network: IpNet,
    before: &[IpAddr],
    asked: &[String],
    claims: &mut Claims,
) -> Result<IpAddr, Vec<FieldError>> {
    let refusal = |why: &str| {
        let detail = format!("failed to allocate IP {text}: {why}");
        FieldError::invalid("spec.clusterIPs", &json!(asked), &detail)
    };
    let address: IpAddr = text.parse().map_err(|_| vec![refusal("it is not an IP address")])?;
    if !network.contains(&address) || address == network.network() {
        let why = format!(
            "the provided IP ({text}) is not in the valid range. The range of valid IPs is {network}"
        );
        return Err(vec![refusal(&why)]);
    }
    if !before.contains(&address) {
        claims.take_asked(Claim::Address(address), refusal("provided IP is already allocated"));
    }
    Ok(address)
}

/// Services are the kind with addresses.
pub(crate) fn has_addresses(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

/// Everything that a Service has.
fn claims_of(service: &Value) -> Vec<Claim> {
    let ports = node_ports::node_ports_of(service).into_iter().map(Claim::NodePort);
    addresses_of(service).into_iter().map(Claim::Address).chain(ports).collect()
}

fn addresses_of(service: &Value) -> Vec<IpAddr> {
    asked_addresses(&service["spec"]).iter().filter_map(|text| text.parse().ok()).collect()
}

fn asked_addresses(spec: &Value) -> Vec<String> {
    let list = texts(&spec["clusterIPs"]);
    if list.is_empty() { texts(&json!([spec["clusterIP"]])) } else { list }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// An update that leaves its addresses out keeps them; it may not change the first.
fn inherit(service: &mut Value, old: &Value) -> Result<(), Vec<FieldError>> {
    let (new_type, old_type) = (&service["spec"]["type"], &old["spec"]["type"]);
    if new_type == "ExternalName" || old_type == "ExternalName" {
        return Ok(());
    }
    let stored = texts(&old["spec"]["clusterIPs"]);
    let asked = texts(&json!([service["spec"]["clusterIP"]]));
    let listed = texts(&service["spec"]["clusterIPs"]);
    let first = asked.first().or(listed.first());
    if let (Some(first), Some(stored)) = (first, stored.first())
        && first != stored
    {
        let detail = "may not change once set";
        return Err(vec![FieldError::invalid("spec.clusterIPs[0]", &json!(listed), detail)]);
    }
    for field in ["ipFamilyPolicy", "ipFamilies"] {
        if service["spec"][field].is_null() {
            service["spec"][field] = old["spec"][field].clone();
        }
    }
    if listed.is_empty() {
        let single = service["spec"]["ipFamilyPolicy"] == "SingleStack";
        let kept = if single { stored.into_iter().take(1).collect() } else { stored };
        service["spec"]["clusterIPs"] = json!(kept);
    }
    Ok(())
}

fn family(network: &IpNet) -> &'static str {
    family_of(&network.network())
}

fn family_of(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// How many addresses of the network are handed out: 2^16 of a larger one, and not IPv4's broadcast address.
fn size(network: &IpNet) -> u128 {
    let bits = network.max_prefix_len() - network.prefix_len();
    let all = 1_u128 << bits.min(16);
    if network.network().is_ipv4() { all - 1 } else { all }
}

/// The address at an offset in a network; `offset` must be less than its size.
pub(crate) fn at(network: &IpNet, offset: u128) -> IpAddr {
    match network.network() {
        IpAddr::V4(first) => {
            let offset = u32::try_from(offset).expect("an IPv4 network has at most 2^32 addresses");
            IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + offset))
        }
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() + offset)),
    }
}

#[cfg(test)]
mod tests;
