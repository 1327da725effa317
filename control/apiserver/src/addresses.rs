//! Service addresses: which are taken, and what a Service gets.
//!
//! The taken set is derived from the stored Services at start and kept in memory. A write reserves what it needs before
//! it goes to the store and gives it back unless it was committed, so two Services never get one address.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::resource::{FieldError, Resource};

/// The allocator.
#[derive(Debug)]
pub(crate) struct ServiceAddresses {
    networks: Vec<IpNet>,
    taken: Arc<Mutex<HashSet<IpAddr>>>,
}

/// Addresses held for a write that is not committed yet; dropping it gives them back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation {
    taken: Arc<Mutex<HashSet<IpAddr>>>,
    added: Vec<IpAddr>,
    /// What the object before had and the new one has not.
    released: Vec<IpAddr>,
}

impl Reservation {
    /// The write is in the store.
    pub(crate) fn commit(mut self) {
        self.added.clear();
        let released = std::mem::take(&mut self.released);
        let mut taken = lock(&self.taken);
        for address in released {
            taken.remove(&address);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        for address in &self.added {
            taken.remove(address);
        }
    }
}

/// As many addresses at the start of a network are left to those who ask for one by name (KEP-3070: a sixteenth of
/// the network, between 16 and 256).
const STATIC_BAND_MAX: u128 = 256;

impl ServiceAddresses {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self { networks, taken: Arc::default() }
    }

    /// Marks what a stored Service has.
    pub(crate) fn restore(&self, service: &Value) {
        lock(&self.taken).extend(addresses_of(service));
    }

    /// Gives back what a removed Service had.
    pub(crate) fn release(&self, resource: &Resource, service: &Value) {
        if has_addresses(resource) {
            let mut taken = lock(&self.taken);
            for address in addresses_of(service) {
                taken.remove(&address);
            }
        }
    }

    /// Completes a Service's families and addresses. Other kinds reserve nothing.
    pub(crate) fn reserve(
        &self,
        resource: &Resource,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, Vec<FieldError>> {
        let mut reservation =
            Reservation { taken: self.taken.clone(), added: Vec::new(), released: Vec::new() };
        if !has_addresses(resource) || !service["spec"].is_object() {
            return Ok(reservation);
        }
        let before = old.map(addresses_of).unwrap_or_default();
        if let Some(old) = old {
            inherit(service, old)?;
        }
        let spec = &mut service["spec"];
        if spec["type"] == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.as_object_mut().expect("checked above").remove(field);
            }
            reservation.released = before;
            return Ok(reservation);
        }
        let asked = asked_addresses(spec);
        let headless = asked.first().is_some_and(|first| first == "None");
        let families = self.families(spec, &asked, headless)?;
        if headless {
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
            reservation.released = before;
            return Ok(reservation);
        }
        let mut addresses = Vec::new();
        for (index, network) in families.iter().enumerate() {
            let address = match asked.get(index) {
                Some(text) => self.claim(text, *network, &before, &mut reservation),
                None => self.next(*network, &mut reservation),
            };
            addresses.push(
                address.map_err(|message| {
                    vec![FieldError::invalid("spec.clusterIPs", &json!(asked), &message)]
                })?,
            );
        }
        reservation.released = before.into_iter().filter(|address| !addresses.contains(address)).collect();
        spec["clusterIP"] = json!(addresses[0]);
        spec["clusterIPs"] = json!(addresses);
        Ok(reservation)
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

    /// Takes the address that was asked for.
    fn claim(
        &self,
        text: &str,
        network: IpNet,
        before: &[IpAddr],
        reservation: &mut Reservation,
    ) -> Result<IpAddr, String> {
        let failed = |why: &str| format!("failed to allocate IP {text}: {why}");
        let address: IpAddr = text.parse().map_err(|_| failed("it is not an IP address"))?;
        if !network.contains(&address) || address == network.network() {
            return Err(failed(&format!(
                "the provided IP ({text}) is not in the valid range. The range of valid IPs is {network}"
            )));
        }
        if before.contains(&address) {
            return Ok(address);
        }
        if !lock(&self.taken).insert(address) {
            return Err(failed("provided IP is already allocated"));
        }
        reservation.added.push(address);
        Ok(address)
    }

    /// Takes any free address, those outside the static band first.
    fn next(&self, network: IpNet, reservation: &mut Reservation) -> Result<IpAddr, String> {
        let size = size(&network);
        let band = (size / 16).clamp(16, STATIC_BAND_MAX).min(size);
        let mut taken = lock(&self.taken);
        let start = if size > band { band + rand::random::<u64>() as u128 % (size - band) } else { 1 };
        let upper = (start..size).chain(band..start);
        for offset in upper.chain(1..band) {
            let address = at(&network, offset);
            if taken.insert(address) {
                reservation.added.push(address);
                return Ok(address);
            }
        }
        Err(format!("failed to allocate a serviceIP: range {network} is full"))
    }
}

/// Services are the kind with addresses.
fn has_addresses(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
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

fn lock(taken: &Mutex<HashSet<IpAddr>>) -> MutexGuard<'_, HashSet<IpAddr>> {
    // A set is whole after any panic of its user.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
