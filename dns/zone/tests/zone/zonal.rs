//! Names of headless services for one topology zone.

use fairlead_model::{Change, EndpointSlice};
use fairlead_zone::{Zone, ZoneConfig};

use crate::{
    answers::check,
    support::{cluster, cluster_ip, config, external, headless, namespace, slice, view},
};

/// A service with endpoints in two zones and one whose zone is not known, one with none, and others of other kinds.
fn zonal(is_on: bool) -> Zone {
    let ends = ["10.244.1.1 h1", "10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5 h5 unready"];
    let Change::PutSlice(whole) = slice("store-1", "store", &["http/TCP/80"], &ends) else { unreachable!() };
    let zones = ["us-west-2a", "us-west-2b", "us-west-2b", "", "us-west-2c"];
    let endpoints = whole.endpoints.into_iter().zip(zones);
    let endpoints = endpoints.map(|(end, zone)| fairlead_model::Endpoint { zone: zone.into(), ..end });
    let slice = EndpointSlice { endpoints: endpoints.collect(), ..whole };
    let services = [
        headless("store"),
        headless("idle"),
        cluster_ip("front", &["10.96.0.22"], &["http/TCP/80"]),
        external("ext", "www.example.com"),
    ];
    let changes = services.into_iter().map(Change::PutService);
    let changes: Vec<Change> =
        [namespace("demo"), Change::PutSlice(slice)].into_iter().chain(changes).collect();
    Zone::build(ZoneConfig { zonal: is_on, ..config() }, &view(&changes), 7)
}

#[test]
fn a_headless_service_has_names_for_its_endpoints_in_a_zone() {
    check(
        &zonal(true),
        &[
            (
                "pin: the endpoints of the zone",
                "us-west-2a.pin._zone.store.demo.svc.cluster.local A",
                "us-west-2a.pin._zone.store.demo.svc.cluster.local A 10.244.1.1",
            ),
            (
                "in any case",
                "US-west-2B.Pin._ZONE.store.demo.svc.cluster.local A",
                "US-west-2B.Pin._ZONE.store.demo.svc.cluster.local A 10.244.1.2 \
                 US-west-2B.Pin._ZONE.store.demo.svc.cluster.local A 10.244.1.3",
            ),
            (
                "SRV and its addresses are those of the zone",
                "us-west-2a.pin._zone.store.demo.svc.cluster.local SRV",
                "us-west-2a.pin._zone.store.demo.svc.cluster.local SRV 0 100 80 h1.store.demo.svc.cluster.local \
                 + h1.store.demo.svc.cluster.local A 10.244.1.1",
            ),
            (
                "pin: a zone with no ready endpoint is empty",
                "us-west-2c.pin._zone.store.demo.svc.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            (
                "so it is for every type",
                "us-west-2c.pin._zone.store.demo.svc.cluster.local TXT",
                "NOERROR SOA cluster.local",
            ),
            (
                "and of a service without endpoints",
                "us-west-2a.pin._zone.idle.demo.svc.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            (
                "prefer: the endpoints of the zone",
                "us-west-2a.prefer._zone.store.demo.svc.cluster.local A",
                "us-west-2a.prefer._zone.store.demo.svc.cluster.local A 10.244.1.1",
            ),
            (
                "prefer: without one, all of them, those without a zone too",
                "x.prefer._zone.store.demo.svc.cluster.local A",
                "x.prefer._zone.store.demo.svc.cluster.local A 10.244.1.1 \
                 x.prefer._zone.store.demo.svc.cluster.local A 10.244.1.2 \
                 x.prefer._zone.store.demo.svc.cluster.local A 10.244.1.3 \
                 x.prefer._zone.store.demo.svc.cluster.local A 10.244.1.4",
            ),
            (
                "what names are below exists",
                "pin._zone.store.demo.svc.cluster.local A",
                "NOERROR SOA cluster.local",
            ),
            ("the label itself, too", "_zone.store.demo.svc.cluster.local A", "NOERROR SOA cluster.local"),
            (
                "no other way than these two",
                "us-west-2a.near._zone.store.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "nothing above the zone",
                "x.us-west-2a.pin._zone.store.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "not of a service that does not exist",
                "us-west-2a.pin._zone.ghost.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "nor of one with a cluster address",
                "us-west-2a.pin._zone.front.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "nor of an alias",
                "us-west-2a.pin._zone.ext.demo.svc.cluster.local A",
                "NXDOMAIN SOA cluster.local",
            ),
            (
                "the service's own name is as it was",
                "h1.store.demo.svc.cluster.local A",
                "h1.store.demo.svc.cluster.local A 10.244.1.1",
            ),
        ],
    );
}

#[test]
fn without_the_option_there_are_no_names_for_zones() {
    for name in ["us-west-2a.pin._zone.store", "pin._zone.store", "_zone.store"] {
        let question = format!("{name}.demo.svc.cluster.local A");
        check(&zonal(false), &[("as ever", &question, "NXDOMAIN SOA cluster.local")]);
    }
    check(
        &cluster(),
        &[("too many labels", "a.pin._zone.db.demo.svc.cluster.local A", "NXDOMAIN SOA cluster.local")],
    );
}
