//! What a Service gets.

use super::*;
use crate::resource::{aggregate, find};

fn dual() -> ServiceAddresses {
    ServiceAddresses::new(vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()])
}

fn services() -> &'static Resource {
    find("", "v1", "services").unwrap()
}

fn reserve(all: &ServiceAddresses, spec: &Value) -> Result<Value, String> {
    let mut service = json!({ "spec": spec });
    match all.reserve(services(), &mut service, None) {
        Ok(reservation) => {
            reservation.commit();
            Ok(service)
        }
        Err(errors) => Err(aggregate(&errors)),
    }
}

#[test]
fn the_family_policy_decides_how_many_addresses() {
    // spec → families
    let rows = [
        (json!({}), "IPv4"),
        (json!({ "ipFamilies": ["IPv6"] }), "IPv6"),
        (json!({ "ipFamilyPolicy": "PreferDualStack" }), "IPv4 IPv6"),
        (json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"] }), "IPv6 IPv4"),
        (json!({ "ipFamilies": ["IPv6", "IPv4"] }), "IPv6 IPv4"),
        (json!({ "clusterIP": "fd00:96::7" }), "IPv6"),
    ];
    for (spec, expected) in rows {
        let service = reserve(&dual(), &spec).unwrap();
        assert_eq!(texts(&service["spec"]["ipFamilies"]).join(" "), expected, "{spec}");
        let families: Vec<_> = addresses_of(&service).iter().map(family_of).collect();
        assert_eq!(families.join(" "), expected, "{spec}");
        assert_eq!(service["spec"]["clusterIP"], service["spec"]["clusterIPs"][0]);
    }
}

#[test]
fn a_taken_address_is_refused_in_upstreams_words() {
    let all = dual();
    reserve(&all, &json!({ "clusterIP": "10.96.0.10" })).unwrap();
    let error = reserve(&all, &json!({ "clusterIP": "10.96.0.10" })).unwrap_err();
    assert_eq!(
        error,
        "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: \
         provided IP is already allocated"
    );
}

#[test]
fn headless_services_and_external_names_take_nothing() {
    let all = dual();
    let headless = reserve(&all, &json!({ "clusterIP": "None", "selector": { "a": "b" } })).unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
    reserve(&all, &json!({ "type": "ExternalName", "externalName": "a.b" })).unwrap();
    assert!(lock(&all.taken).is_empty());
}

#[test]
fn a_write_that_fails_gives_its_addresses_back() {
    let all = dual();
    let mut service = json!({ "spec": {} });
    drop(all.reserve(services(), &mut service, None).unwrap());
    assert!(lock(&all.taken).is_empty());
}

#[test]
fn an_update_keeps_extends_and_releases() {
    let all = dual();
    let old = reserve(&all, &json!({})).unwrap();
    let mut dual_stack = json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } });
    all.reserve(services(), &mut dual_stack, Some(&old)).unwrap().commit();
    assert_eq!(dual_stack["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(lock(&all.taken).len(), 2);
    let mut single = json!({ "spec": { "ipFamilyPolicy": "SingleStack" } });
    all.reserve(services(), &mut single, Some(&dual_stack)).unwrap().commit();
    assert_eq!(single["spec"]["clusterIPs"], json!([old["spec"]["clusterIP"]]));
    assert_eq!(lock(&all.taken).len(), 1);
    let mut changed = json!({ "spec": { "clusterIP": "10.96.9.9" } });
    assert!(all.reserve(services(), &mut changed, Some(&single)).is_err());
}

#[test]
fn a_full_network_says_so() {
    let all = ServiceAddresses::new(vec!["10.0.0.0/28".parse().unwrap()]);
    for _ in 0..14 {
        reserve(&all, &json!({})).unwrap();
    }
    assert!(reserve(&all, &json!({})).unwrap_err().contains("range 10.0.0.0/28 is full"));
}
