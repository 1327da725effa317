//! `tls CERT KEY [CA] [{ client_auth nocert|request|require|verify_if_given|require_and_verify }]`: the certificate of
//! a server block that speaks TLS, HTTPS or QUIC.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{Plugins, Setup, once};
use crate::corefile::{CorefileError, Directive, unknown};

/// What a client must show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    None,
    Optional,
    Required,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let mut words = directive.words();
    let certificate = setup.path(words.need("a certificate, a key and optionally a CA")?);
    let key = setup.path(words.need("a key")?);
    let ca = words.next().map(|file| setup.path(file));
    let mut auth = ClientAuth::None;
    for (option, mut words) in directive.lines() {
        auth = match (option, words.next()) {
            ("client_auth", Some("nocert")) => ClientAuth::None,
            ("client_auth", Some("request" | "verify_if_given")) => ClientAuth::Optional,
            ("client_auth", Some("require" | "require_and_verify")) => ClientAuth::Required,
            ("client_auth", Some(other)) => return Err(words.fault(format!("unknown client_auth {other:?}"))),
            _ => return Err(unknown(&words, option)),
        };
    }
    let config =
        server_config(&certificate, &key, ca.as_deref(), auth).map_err(|message| words.fault(message))?;
    setup.block.tls = Some(Arc::new(config));
    words.end()?;
    Ok(Vec::new())
}

fn server_config(
    certificate: &Path,
    key: &Path,
    ca: Option<&Path>,
    auth: ClientAuth,
) -> Result<ServerConfig, String> {
    let (chain, key) = (certificates(certificate)?, private_key(key)?);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match (auth, ca) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err("client_auth needs a CA to know clients by".into()),
        (auth, Some(ca)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
            let verifier =
                if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|e| format!("{}: {e}", ca.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key);
    config.map_err(|e| format!("the certificate {} and its key do not work: {e}", certificate.display()))
}

/// The TLS of `forward`: nothing means the certificates that the system trusts.
pub(crate) fn client_config(files: &[std::path::PathBuf]) -> Result<ClientConfig, String> {
    let (client, ca) = match files {
        [] => (None, None),
        [ca] => (None, Some(ca)),
        [certificate, key] => (Some((certificate, key)), None),
        [certificate, key, ca] => (Some((certificate, key)), Some(ca)),
        _ => return Err("tls takes a CA, or a certificate and a key, or all three".into()),
    };
    let roots = match ca {
        Some(ca) => roots(ca)?,
        None => system_roots(),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|e| format!("the certificate {} and its key do not work: {e}", certificate.display())),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = |e: &dyn std::fmt::Display| format!("cannot read certificates from {}: {e}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|e| read(&e))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|e| read(&e))?;
    if found.is_empty() { Err(read(&"there is none")) } else { Ok(found) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|e| format!("cannot read a key from {}: {e}", file.display()))
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(roots)
}

/// Where Linux distributions keep the certificates they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let bundle = BUNDLES.iter().find_map(|file| certificates(Path::new(file)).ok());
    roots.add_parsable_certificates(bundle.unwrap_or_default());
    roots
}
