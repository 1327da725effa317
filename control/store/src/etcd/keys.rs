//! The store's keys and etcd's.

use crate::StoreError;

/// Replaces the root by the prefix and back.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
    prefix: String,
}

impl Keys {
    pub(super) fn new(root: &str, prefix: &str) -> Self {
        Self { root: root.trim_end_matches('/').to_owned(), prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// The key in etcd.
    pub(super) fn outside(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        match key.strip_prefix(&self.root) {
            Some(rest) if rest.starts_with('/') => Ok([self.prefix.as_bytes(), rest.as_bytes()].concat()),
            _ => Err(StoreError::ForeignKey { key: key.to_owned(), root: self.root.clone() }),
        }
    }

    /// The store's key; none when it is somebody else's.
    pub(super) fn inside(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        Some(format!("{}{}", self.root, std::str::from_utf8(rest).ok()?))
    }

    /// First key and end of the keys with a prefix; none when no key of this store begins so.
    pub(super) fn range(&self, prefix: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        match prefix.strip_prefix(&self.root) {
            Some(rest) if rest.starts_with('/') => {
                let start = [self.prefix.as_bytes(), rest.as_bytes()].concat();
                let end = after_prefix(&start);
                Some((start, end))
            }
            _ if format!("{}/", self.root).starts_with(prefix) => Some(self.everything()),
            _ => None,
        }
    }

    /// First key and end of all keys of this store.
    pub(super) fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        let start = format!("{}/", self.prefix).into_bytes();
        let end = after_prefix(&start);
        (start, end)
    }

    /// A key that never exists.
    pub(super) fn root_key(&self) -> Vec<u8> {
        format!("{}/", self.prefix).into_bytes()
    }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // To etcd: to the end of the key space.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams_below_the_prefix() {
        let keys = Keys::new("/registry", "/blue/");
        assert_eq!(keys.outside("/registry/pods/a/b").unwrap(), b"/blue/pods/a/b");
        assert_eq!(keys.inside(b"/blue/pods/a/b").unwrap(), "/registry/pods/a/b");
        assert_eq!(keys.inside(b"/green/pods/a/b"), None);
        assert!(keys.outside("/registryx/pods").is_err());
        assert_eq!(
            keys.range("/registry/pods/").unwrap(),
            (b"/blue/pods/".to_vec(), b"/blue/pods0".to_vec())
        );
        assert_eq!(keys.range("/reg"), Some(keys.everything()));
        assert_eq!(keys.range(""), Some(keys.everything()));
        assert_eq!(keys.range("/other/"), None);
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_one() {
        for (prefix, end) in [(&b"/a/"[..], &b"/a0"[..]), (b"a\xff", b"b"), (b"\xff\xff", b"\0")] {
            assert_eq!(after_prefix(prefix), end);
        }
    }
}
