//! Kinds of which nothing is stored: questions to the server that have the form of objects, bindings, which become part
//! of a pod, and how the server itself is.

use k8s_openapi::api::{authentication, authorization, core};

use super::catalog::{PLAIN, plain};
use super::decode::decode;
use super::{Resource, Strategy};
use crate::table::columns;

const CREATE: &[&str] = &["create"];
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Every kind that is answered and not stored.
pub static REVIEWS: &[Resource] = &[
    Resource { verbs: CREATE, strategy: &BINDING, ..plain("Binding", "", "bindings", "binding") },
    Resource {
        short_names: &["cs"],
        namespaced: false,
        verbs: &["get", "list"],
        columns: columns::COMPONENT_STATUS,
        strategy: &COMPONENT_STATUS,
        ..plain("ComponentStatus", "ComponentStatusList", "componentstatuses", "componentstatus")
    },
    Resource {
        group: "authentication.k8s.io",
        namespaced: false,
        verbs: CREATE,
        strategy: &SELF_SUBJECT,
        ..plain("SelfSubjectReview", "", "selfsubjectreviews", "selfsubjectreview")
    },
    Resource {
        group: AUTHORIZATION,
        namespaced: false,
        verbs: CREATE,
        strategy: &SELF_ACCESS,
        ..plain("SelfSubjectAccessReview", "", "selfsubjectaccessreviews", "selfsubjectaccessreview")
    },
    Resource {
        group: AUTHORIZATION,
        namespaced: false,
        verbs: CREATE,
        strategy: &SELF_RULES,
        ..plain("SelfSubjectRulesReview", "", "selfsubjectrulesreviews", "selfsubjectrulesreview")
    },
    Resource {
        group: AUTHORIZATION,
        namespaced: false,
        verbs: CREATE,
        strategy: &ACCESS,
        ..plain("SubjectAccessReview", "", "subjectaccessreviews", "subjectaccessreview")
    },
    Resource {
        group: AUTHORIZATION,
        verbs: CREATE,
        strategy: &LOCAL_ACCESS,
        ..plain("LocalSubjectAccessReview", "", "localsubjectaccessreviews", "localsubjectaccessreview")
    },
];

static BINDING: Strategy = Strategy { decode: decode::<core::v1::Binding>, ..PLAIN };
static COMPONENT_STATUS: Strategy = Strategy { decode: decode::<core::v1::ComponentStatus>, ..PLAIN };
static SELF_SUBJECT: Strategy = Strategy { decode: decode::<authentication::v1::SelfSubjectReview>, ..PLAIN };
static SELF_ACCESS: Strategy =
    Strategy { decode: decode::<authorization::v1::SelfSubjectAccessReview>, ..PLAIN };
static SELF_RULES: Strategy =
    Strategy { decode: decode::<authorization::v1::SelfSubjectRulesReview>, ..PLAIN };
static ACCESS: Strategy = Strategy { decode: decode::<authorization::v1::SubjectAccessReview>, ..PLAIN };
static LOCAL_ACCESS: Strategy =
    Strategy { decode: decode::<authorization::v1::LocalSubjectAccessReview>, ..PLAIN };
