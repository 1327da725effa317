//! The rows about services: what clients outside and packets that no socket hook saw meet.

mod errors;
mod fixture;
mod inside;
mod outside;
mod refusals;
mod routers;
mod sticky;
mod strays;

use std::vec::Vec;

use self::fixture::{V4, V6};
use super::{Case, Hook};

/// Every row.
pub(super) fn table() -> Vec<Case> {
    let families = [V4, V6];
    let of_family = families.iter().map(|family| {
        [
            outside::outside_to_here(family),
            outside::outside_to_elsewhere(family),
            outside::handed_over(family),
            outside::returned_directly(family),
            outside::masqueraded(family),
            outside::by_the_stack(family),
            outside::ports_again(family),
            outside::outside_to_host(family),
            inside::inside(family),
            inside::beside_a_service(family),
            refusals::refused(family),
            sticky::sticky(family),
            strays::strays(family),
            errors::errors(family),
            routers::routers(family),
            errors::fragments(family),
            errors::too_big(family),
        ]
        .concat()
    });
    of_family.flatten().map(only_on_the_host_over_the_overlay).collect()
}

/// A test run has no tunnel that a packet came by.
fn only_on_the_host_over_the_overlay(case: Case) -> Case {
    let overlay = matches!(case.hook, Hook::FromOverlay(_));
    Case { host_only: case.host_only || overlay, ..case }
}
