//! The server's certificate, read again when its file has changed: whoever renews it need not stop the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often a handshake looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate and its key in files.
#[derive(Debug)]
pub(crate) struct CertificateFile {
    cert_path: PathBuf,
    key_path: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    /// Of both files.
    modified: [Option<SystemTime>; 2],
    looked_at: Instant,
}

impl CertificateFile {
    /// Reads the certificate in `<dir>/<name>.crt` and its key in `<dir>/<name>.key`.
    pub(crate) fn open(dir: &Path, name: &str, provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        let modified = [modified(&cert_path), modified(&key_path)];
        let key = load(&cert_path, &key_path, &provider)?;
        let current = Current { key: Arc::new(key), modified, looked_at: Instant::now() };
        Ok(Self { cert_path, key_path, provider, current: Mutex::new(current) })
    }

    /// The newest certificate that can be used.
    fn newest(&self, now: Instant) -> Arc<CertifiedKey> {
        // What is there is whole after any panic of its user.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.looked_at) < LOOK_EVERY {
            return current.key.clone();
        }
        current.looked_at = now;
        let modified = [modified(&self.cert_path), modified(&self.key_path)];
        if modified != current.modified {
            match load(&self.cert_path, &self.key_path, &self.provider) {
                Ok(key) => {
                    tracing::info!(path = %self.cert_path.display(), "the server's certificate has changed");
                    current.key = Arc::new(key);
                    current.modified = modified;
                }
                // One of the two may not be written yet; the next handshake looks again.
                Err(error) => {
                    tracing::warn!(path = %self.cert_path.display(), %error, "cannot use the changed certificate");
                }
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for CertificateFile {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.newest(Instant::now()))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn load(cert_path: &Path, key_path: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, rustls::Error> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
        rustls::Error::General(format!("cannot read {}: {error}", path.display()))
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(cert_path).and_then(Iterator::collect::<Result<_, _>>);
    let chain = chain.map_err(|error| unreadable(cert_path, &error))?;
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| unreadable(key_path, &error))?;
    let certified = CertifiedKey::from_der(chain, key, provider)?;
    certified.keys_match()?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Pki, write_private};

    #[test]
    fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let pki = Pki::open_or_create(dir.path()).expect("an authority");
        pki.stored("apiserver", "a", &[], &["a.example".to_owned()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let file = CertificateFile::open(dir.path(), "apiserver", provider).expect("it was just made");
        let start = Instant::now();
        let first = file.newest(start);
        // Other names: a new certificate, in both files.
        pki.stored("apiserver", "a", &[], &["b.example".to_owned()]).expect("a certificate");
        assert!(Arc::ptr_eq(&first, &file.newest(start)), "nobody looks at every handshake");
        let second = file.newest(start + 2 * LOOK_EVERY);
        assert_ne!(first.cert, second.cert);
        write_private(&dir.path().join("apiserver.crt"), "not a certificate").expect("it is written");
        assert!(Arc::ptr_eq(&second, &file.newest(start + 4 * LOOK_EVERY)));
    }
}
