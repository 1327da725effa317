//! The cluster's certificate authority and what it signs.
//!
//! The authority is made once, at `ca.crt` and `ca.key`. Keys are readable by their owner only. Every certificate it
//! signs may be used by a client and by a server, because nodes are both.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{ToSpan, Zoned, civil};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A stored key or certificate is not one.
    #[error("{} does not hold a valid key or certificate; restore it, or remove the directory to make a new authority", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate for {name}")]
    Issue {
        /// Its common name.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, in PEM.
    pub cert_pem: String,
    /// The private key, in PEM (PKCS #8).
    pub key_pem: String,
}

/// The cluster's certificate authority.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

const CA_NAME: &str = "fairlead-ca";
const CA_YEARS: i64 = 10;
const LEAF_YEARS: i64 = 1;
/// A stored certificate with less than this left is made anew at the next start.
const RENEW_DAYS: i64 = 90;

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the authority in `dir`, or makes it there.
    pub fn open_or_create(dir: &Path) -> Result<Self, PkiError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| PkiError::File {
            operation: "create",
            path: dir.to_owned(),
            source,
        })?;
        // Two processes that start together must not make two authorities.
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(|source| PkiError::File { operation: "lock", path: lock_path, source })?;
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let (ca_pem, key) = match (read(&cert_path)?, read(&key_path)?) {
            (Some(cert), Some(key)) => {
                let damaged = |path: PathBuf| move |_| PkiError::Damaged { path };
                CertificateDer::from_pem_slice(cert.as_bytes())
                    .map_err(|_| PkiError::Damaged { path: cert_path })?;
                (cert, KeyPair::from_pem(&key).map_err(damaged(key_path))?)
            }
            // A key without its certificate is what a crash between the two writes leaves.
            (None, _) => {
                let (cert, key) = make_authority()
                    .map_err(|source| PkiError::Issue { name: CA_NAME.to_owned(), source })?;
                write_private(&key_path, &key.serialize_pem())?;
                write_private(&cert_path, &cert)?;
                (cert, key)
            }
            (Some(_), None) => return Err(PkiError::Damaged { path: key_path }),
        };
        let issuer = Issuer::new(authority_params(), key);
        Ok(Self { dir: dir.to_owned(), ca_pem, issuer })
    }

    /// The authority's certificate, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A new certificate: `name` is the user, `organizations` its groups, `sans` the DNS names and addresses it may
    /// serve as.
    pub fn issue(&self, name: &str, organizations: &[&str], sans: &[String]) -> Result<Issued, PkiError> {
        let failed = |source| PkiError::Issue { name: name.to_owned(), source };
        let mut params = CertificateParams::new(sans.to_vec()).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        for organization in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        set_validity(&mut params, LEAF_YEARS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// The certificate kept as `<file>.crt` and `<file>.key`; made anew when there is none, when it nears its end, or
    /// when it is for other names.
    pub fn stored(
        &self,
        file: &str,
        name: &str,
        organizations: &[&str],
        sans: &[String],
    ) -> Result<Issued, PkiError> {
        let cert_path = self.dir.join(format!("{file}.crt"));
        let key_path = self.dir.join(format!("{file}.key"));
        if let (Some(cert_pem), Some(key_pem)) = (read(&cert_path)?, read(&key_path)?)
            && is_current(&cert_pem, sans)
            && is_pair(&cert_pem, &key_pem)
        {
            return Ok(Issued { cert_pem, key_pem });
        }
        let issued = self.issue(name, organizations, sans)?;
        write_private(&key_path, &issued.key_pem)?;
        write_private(&cert_path, &issued.cert_pem)?;
        Ok(issued)
    }
}

impl Issued {
    /// The certificate and key in the form that TLS takes.
    pub fn to_der(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rustls_pki_types::pem::Error> {
        let cert = CertificateDer::from_pem_slice(self.cert_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        Ok((vec![cert], key))
    }
}

/// A kubeconfig for one user of one cluster; the arguments after the URL are in PEM.
#[must_use]
pub fn kubeconfig(server_url: &str, ca: &str, cert: &str, key: &str) -> String {
    let (ca, cert, key) = (STANDARD.encode(ca), STANDARD.encode(cert), STANDARD.encode(key));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: fairlead\n  \
           cluster:\n    \
             server: {server_url}\n    \
             certificate-authority-data: {ca}\n\
         users:\n\
         - name: fairlead\n  \
           user:\n    \
             client-certificate-data: {cert}\n    \
             client-key-data: {key}\n\
         contexts:\n\
         - name: fairlead\n  \
           context:\n    \
             cluster: fairlead\n    \
             user: fairlead\n\
         current-context: fairlead\n"
    )
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { operation: "write", path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed)
}

fn make_authority() -> Result<(String, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let cert = authority_params().self_signed(&key)?;
    Ok((cert.pem(), key))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, CA_YEARS);
    params
}

/// From yesterday, for clocks that differ a little, for so many years.
fn set_validity(params: &mut CertificateParams, years: i64) {
    let today = Zoned::now().date();
    let at = |date: civil::Date| {
        let month = u8::try_from(date.month()).expect("a month is 1 to 12");
        // Never the 29th to 31st, which the other year or zone may not have.
        let day = u8::try_from(date.day().min(28)).expect("a day is 1 to 31");
        date_time_ymd(date.year().into(), month, day)
    };
    params.not_before = at(today.saturating_sub(1.day()));
    params.not_after = at(today.saturating_add(years.years()));
}

fn is_current(cert_pem: &str, sans: &[String]) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(cert_pem.as_bytes()) else { return false };
    let Ok((_, cert)) = X509Certificate::from_der(&der) else { return false };
    let now = x509_parser::time::ASN1Time::now().timestamp();
    let left = cert.validity().not_after.timestamp() - now;
    let mut stored: Vec<String> = Vec::new();
    if let Ok(Some(names)) = cert.subject_alternative_name() {
        stored.extend(names.value.general_names.iter().filter_map(san_text));
    }
    let mut wanted = sans.to_vec();
    wanted.sort_unstable();
    stored.sort_unstable();
    left > RENEW_DAYS * 24 * 3600 && stored == wanted
}

fn san_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Whether the key belongs to the certificate: a crash may leave the one without the other.
fn is_pair(cert_pem: &str, key_pem: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(cert_pem.as_bytes()) else { return false };
    let (Ok((_, cert)), Ok(key)) = (X509Certificate::from_der(&der), KeyPair::from_pem(key_pem)) else {
        return false;
    };
    cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { operation: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_certificate_is_kept_until_its_names_change() {
        let dir = tempfile::TempDir::new().unwrap();
        let pki = Pki::open_or_create(dir.path()).unwrap();
        let sans = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let first = pki.stored("server", "s", &[], &sans).unwrap();
        let again = Pki::open_or_create(dir.path()).unwrap();
        assert_eq!(again.ca_pem(), pki.ca_pem());
        assert_eq!(again.stored("server", "s", &[], &sans).unwrap().cert_pem, first.cert_pem);
        let other = again.stored("server", "s", &[], &sans[..1]).unwrap();
        assert_ne!(other.cert_pem, first.cert_pem);
    }

    #[test]
    fn keys_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::TempDir::new().unwrap();
        Pki::open_or_create(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
