//! Services' endpoints, and what leads traffic to services.

use k8s_openapi::api::{discovery, networking};

use super::*;

const GROUP: &str = "networking.k8s.io";

pub(super) const ENDPOINT_SLICE: Resource = Resource {
    group: "discovery.k8s.io",
    columns: columns::ENDPOINT_SLICE,
    has_generation: true,
    strategy: &ENDPOINT_SLICE_RULES,
    ..plain("EndpointSlice", "EndpointSliceList", "endpointslices", "endpointslice")
};

static ENDPOINT_SLICE_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::ENDPOINT_SLICE)]],
    rules: &[&[at("", rules::ENDPOINT_SLICE)]],
    immutable: rules::ENDPOINT_SLICE_IMMUTABLE,
    generation_of: &["endpoints", "ports", "metadata.labels"],
    decode: decode::<discovery::v1::EndpointSlice>,
    ..PLAIN
};

pub(super) const INGRESS: Resource = Resource {
    group: GROUP,
    short_names: &["ing"],
    subresources: &["status"],
    storage_prefix: "ingress",
    columns: columns::INGRESS,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::INGRESS)]],
        rules: &[&[at("", rules::INGRESS)]],
        status_on_create: StatusOnCreate::Start(service_status),
        decode: decode::<networking::v1::Ingress>,
        ..PLAIN
    },
    ..plain("Ingress", "IngressList", "ingresses", "ingress")
};

pub(super) const INGRESS_CLASS: Resource = Resource {
    group: GROUP,
    namespaced: false,
    columns: columns::INGRESS_CLASS,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::INGRESS_CLASS)]],
        rules: &[&[at("", rules::INGRESS_CLASS)]],
        immutable: rules::INGRESS_CLASS_IMMUTABLE,
        decode: decode::<networking::v1::IngressClass>,
        ..PLAIN
    },
    ..plain("IngressClass", "IngressClassList", "ingressclasses", "ingressclass")
};

pub(super) const NETWORK_POLICY: Resource = Resource {
    group: GROUP,
    short_names: &["netpol"],
    columns: columns::NETWORK_POLICY,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::NETWORK_POLICY)]],
        rules: &[&[at("", rules::NETWORK_POLICY)]],
        decode: decode::<networking::v1::NetworkPolicy>,
        ..PLAIN
    },
    ..plain("NetworkPolicy", "NetworkPolicyList", "networkpolicies", "networkpolicy")
};

/// Made by the server itself, together with the Service that has the address.
pub(super) const IP_ADDRESS: Resource = Resource {
    group: GROUP,
    short_names: &["ip"],
    namespaced: false,
    columns: columns::IP_ADDRESS,
    has_generation: true,
    strategy: &Strategy {
        rules: &[&[at("", rules::IP_ADDRESS)]],
        immutable: &[Immutable::Field("spec.parentRef")],
        name: NameSyntax::Address,
        decode: decode::<networking::v1::IPAddress>,
        ..PLAIN
    },
    ..plain("IPAddress", "IPAddressList", "ipaddresses", "ipaddress")
};

pub(super) const SERVICE_CIDR: Resource = Resource {
    group: GROUP,
    namespaced: false,
    subresources: &["status"],
    columns: columns::SERVICE_CIDR,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        rules: &[&[at("", rules::SERVICE_CIDR)]],
        immutable: &[Immutable::Field("spec.cidrs")],
        decode: decode::<networking::v1::ServiceCIDR>,
        ..PLAIN
    },
    ..plain("ServiceCIDR", "ServiceCIDRList", "servicecidrs", "servicecidr")
};
