//! What leads traffic to services.

use super::{AGE, Cell, Column, NAME, column};
use crate::table::cells::cluster as cell;

/// Ingresses.
pub(crate) const INGRESS: &[Column] = &[
    NAME,
    column("Class", Cell::Of(cell::ingress_class), "The class of the controller."),
    column("Hosts", Cell::Of(cell::ingress_hosts), "The hosts that the rules are about."),
    column("Address", Cell::Of(cell::ingress_address), "Where it is reached."),
    column("Ports", Cell::Of(cell::ingress_ports), "The ports where it is reached."),
    AGE,
];

/// Ingress classes.
pub(crate) const INGRESS_CLASS: &[Column] = &[
    NAME,
    column("Controller", Cell::At("/spec/controller"), "The controller of the class."),
    column("Parameters", Cell::Of(cell::parameters), "The object with further settings."),
    AGE,
];

/// Network policies.
pub(crate) const NETWORK_POLICY: &[Column] =
    &[NAME, column("Pod-Selector", Cell::Of(cell::pod_selector), "The labels of the pods."), AGE];

/// Addresses.
pub(crate) const IP_ADDRESS: &[Column] =
    &[NAME, column("ParentRef", Cell::Of(cell::parent), "Who has the address."), AGE];

/// Networks of service addresses.
pub(crate) const SERVICE_CIDR: &[Column] =
    &[NAME, column("CIDRs", Cell::Of(cell::cidrs), "The networks."), AGE];
