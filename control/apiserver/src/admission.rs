//! Admission: what the cluster adds to an object, and what it refuses, beyond the rules of the kind.
//!
//! A chain of plugins in two stages, each a row of [`CHAIN`]: the first stage changes the object, then the kind's rules
//! are checked, then the second stage looks at the result. What a namespace may use is charged last ([`quota`]), in the
//! transaction that writes the object. A plugin may wait for others, as one that asks webhooks does: it is a row in
//! either stage, behind those of this file.

use futures::future::BoxFuture;
use serde_json::Value;

use crate::api::{Api, Call};
use crate::authn::Identity;
use crate::error::ApiError;
use crate::object;
use crate::resource::Resource;

mod limit_ranger;
mod mirror;
mod priority;
pub(crate) mod quota;
mod signing_request;
mod tolerations;

use self::mirror::Mirror;

/// What the plugins know of the cluster.
#[derive(Debug)]
pub(crate) struct Admission {
    limit_ranges: Mirror,
    priority_classes: Mirror,
}

/// A write that asks to be admitted.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) api: &'a Api,
    /// Who asks.
    pub(crate) identity: &'a Identity,
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: Option<&'a str>,
    /// What is replaced; absent for a new object.
    pub(crate) old: Option<&'a Value>,
    pub(crate) subresource: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Completes and changes the object.
    Change,
    /// Looks at the object, which is as it will be stored.
    Check,
}

/// What a plugin does; it changes the object in the first stage only.
type Run = for<'a> fn(&'a Attempt<'_>, &'a mut Value) -> BoxFuture<'a, Result<(), ApiError>>;

struct Plugin {
    stage: Stage,
    /// The group and plural of the kind it is about.
    of: (&'static str, &'static str),
    /// The subresources it is about, besides the object itself.
    subresources: &'static [&'static str],
    run: Run,
}

const SIGNING_REQUESTS: (&str, &str) = ("certificates.k8s.io", "certificatesigningrequests");

/// In upstream's order (`pkg/kubeapiserver/options/plugins.go`).
const CHAIN: &[Plugin] = &[
    Plugin { stage: Stage::Change, of: ("", "pods"), subresources: &[], run: limit_ranger::complete },
    Plugin { stage: Stage::Change, of: ("", "pods"), subresources: &[], run: priority::resolve },
    Plugin { stage: Stage::Change, of: ("", "pods"), subresources: &[], run: tolerations::complete },
    Plugin { stage: Stage::Change, of: ("", "resourcequotas"), subresources: &[], run: quota::count_at_once },
    Plugin {
        stage: Stage::Change,
        of: SIGNING_REQUESTS,
        subresources: &[],
        run: signing_request::say_who_asks,
    },
    Plugin { stage: Stage::Check, of: ("", "pods"), subresources: &["resize"], run: limit_ranger::check },
    Plugin {
        stage: Stage::Check,
        of: ("", "persistentvolumeclaims"),
        subresources: &[],
        run: limit_ranger::check,
    },
];

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            limit_ranges: Mirror::of("", "limitranges"),
            priority_classes: Mirror::of("scheduling.k8s.io", "priorityclasses"),
        }
    }
}

impl<'a> Attempt<'a> {
    pub(crate) fn of(call: &'a Call<'_>, old: Option<&'a Value>, subresource: Option<&'a str>) -> Self {
        let namespace = call.target.namespace.as_deref();
        Self { api: call.api, identity: call.identity, resource: call.resource, namespace, old, subresource }
    }

    /// Runs the plugins of a stage.
    pub(crate) async fn run(&self, stage: Stage, object: &mut Value) -> Result<(), ApiError> {
        for plugin in CHAIN.iter().filter(|plugin| plugin.stage == stage && plugin.concerns(self)) {
            (plugin.run)(self, object).await?;
        }
        Ok(())
    }

    fn forbidden(&self, object: &Value, message: String) -> ApiError {
        let name = object::meta(object, "name").to_owned();
        ApiError::Forbidden { resource: self.resource, name, message, cause: None }
    }
}

impl Plugin {
    fn concerns(&self, attempt: &Attempt<'_>) -> bool {
        (attempt.resource.group, attempt.resource.plural) == self.of
            && attempt.subresource.is_none_or(|sub| self.subresources.contains(&sub))
    }
}
