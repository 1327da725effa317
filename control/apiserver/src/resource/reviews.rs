//! Questions to the server that have the form of objects: they are created, answered, and stored nowhere.

use k8s_openapi::api::{authentication, authorization};

use super::catalog::{PLAIN, plain};
use super::decode::decode;
use super::{Resource, Strategy};

const CREATE: &[&str] = &["create"];
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Every question that is answered.
pub static REVIEWS: &[Resource] = &[
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

static SELF_SUBJECT: Strategy = Strategy { decode: decode::<authentication::v1::SelfSubjectReview>, ..PLAIN };
static SELF_ACCESS: Strategy =
    Strategy { decode: decode::<authorization::v1::SelfSubjectAccessReview>, ..PLAIN };
static SELF_RULES: Strategy =
    Strategy { decode: decode::<authorization::v1::SelfSubjectRulesReview>, ..PLAIN };
static ACCESS: Strategy = Strategy { decode: decode::<authorization::v1::SubjectAccessReview>, ..PLAIN };
static LOCAL_ACCESS: Strategy =
    Strategy { decode: decode::<authorization::v1::LocalSubjectAccessReview>, ..PLAIN };
