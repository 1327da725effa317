//! Names of chains: a readable prefix and a hash of what they are for.

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

/// The first `length` characters of the base32 of the SHA-256 of `text`, as kube-proxy makes them
/// (`portProtoHash` in `pkg/proxy/iptables/proxier.go`).
pub(crate) fn short(text: &str, length: usize) -> String {
    let mut encoded = BASE32.encode(&Sha256::digest(text.as_bytes()));
    encoded.truncate(length);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that anybody's cluster shows in `iptables-save` and `nft list ruleset`.
    #[test]
    fn names_are_those_of_kube_proxy() {
        assert_eq!(short("default/kubernetes:httpstcp", 16), "NPX46M4PTMTKRN6Y");
        assert_eq!(short("kube-system/kube-dns:dnsudp", 16), "TCOU7JCQXEZGVUNU");
        assert_eq!(short("default/kubernetes/tcp/https", 8), "2QRHZV4L");
    }
}
