//! Who calls: the identity in a client certificate that our authority signed, or the process itself.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::error::ApiError;
use crate::request::RequestInfo;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

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
        Self { user: "system:apiserver".to_owned(), groups: vec![MASTERS.to_owned()] }
    }

    /// The user (common name) and groups (organizations) of a certificate that TLS has verified.
    pub(crate) fn of_certificate(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let subject: &X509Name<'_> = cert.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        Some(Self { user, groups: groups.map(str::to_owned).collect() })
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

/// The place of authorization: everybody whom our authority vouches for may do everything, until roles decide.
pub(crate) fn authorize(_identity: Option<&Identity>, _info: &RequestInfo) -> Result<(), ApiError> {
    Ok(())
}
