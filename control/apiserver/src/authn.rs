//! Who calls: the identity in a client certificate that our authority signed, or the process itself.

use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::error::ApiError;
use crate::request::RequestInfo;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of everybody whom the server knows.
const AUTHENTICATED: &str = "system:authenticated";

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

impl Identity {
    /// A component in this process.
    pub(crate) fn in_process() -> Self {
        Self::new("system:apiserver".to_owned(), vec![MASTERS.to_owned()])
    }

    /// The user (common name) and groups (organizations) of a certificate that TLS has verified.
    pub(crate) fn of_certificate(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let subject: &X509Name<'_> = cert.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        Some(Self::new(user, groups.map(str::to_owned).collect()))
    }

    fn new(user: String, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { user, groups }
    }

    /// Somebody without a certificate.
    pub(crate) fn anonymous() -> Self {
        Self { user: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// Whether limits do not hold for the caller, as upstream's do not for its administrators.
    pub(crate) fn is_exempt(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

/// What anybody may read.
const PUBLIC_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

/// Refuses callers that are nobody, except on the public paths.
pub(crate) fn require(identity: Option<&Identity>, info: &RequestInfo) -> Result<(), ApiError> {
    let path = info.path.trim_end_matches('/');
    let public = PUBLIC_PATHS.iter().any(|open| path.strip_prefix(open).is_some_and(is_path_end));
    if identity.is_some() || public { Ok(()) } else { Err(ApiError::Unauthorized) }
}

fn is_path_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// What somebody may do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Everything.
    Everything,
}

impl Rule {
    /// As a rule about resources and a rule about paths, in the form of `authorization.k8s.io/v1`.
    pub(crate) fn to_values(self) -> (Value, Value) {
        match self {
            Self::Everything => (
                json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }),
                json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }),
            ),
        }
    }
}

/// Why somebody may do something.
pub(crate) const REASON: &str =
    "the cluster's authority vouches for every user, and every user may do everything";

/// The rules that hold for somebody: everybody may do everything, until roles decide.
pub(crate) fn rules(_identity: &Identity) -> &'static [Rule] {
    &[Rule::Everything]
}

/// The place of authorization.
pub(crate) fn authorize(_identity: Option<&Identity>, _info: &RequestInfo) -> Result<(), ApiError> {
    Ok(())
}
