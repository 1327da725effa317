//! The user a container runs as.

use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::Error;

/// Numeric identity of a container's processes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
}

/// The container's user: its own settings, the pod's, then the image's. Names are looked up in the image's
/// `/etc/passwd` and `/etc/group`, whose texts `read` gives.
pub(crate) fn resolve(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Result<User, Error> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let of_container = container.security_context.as_ref();
    let field = |what: &str| format!("container {}: securityContext.{what}", container.name);
    let number = |value: Option<i64>, what: &str| {
        value
            .map(u32::try_from)
            .transpose()
            .map_err(|_| Error::unsupported(field(what), "must be a user number"))
    };
    let uid =
        number(of_container.and_then(|s| s.run_as_user).or(of_pod.and_then(|s| s.run_as_user)), "runAsUser")?;
    let gid = number(
        of_container.and_then(|s| s.run_as_group).or(of_pod.and_then(|s| s.run_as_group)),
        "runAsGroup",
    )?;
    let passwd = read("etc/passwd").unwrap_or_default();
    let mut user = match uid {
        Some(uid) => by_passwd(&passwd, &uid.to_string()).unwrap_or(User { uid, ..User::default() }),
        None => {
            from_image(image_user, &passwd, || read("etc/group").unwrap_or_default()).ok_or_else(|| {
                Error::unsupported("image user", format!("{image_user:?} is not in the image's /etc/passwd"))
            })?
        }
    };
    if let Some(gid) = gid {
        user.gid = gid;
    }
    if let Some(security) = of_pod {
        let groups = security.supplemental_groups.iter().flatten().chain(security.fs_group.iter());
        user.additional_gids.extend(groups.filter_map(|group| u32::try_from(*group).ok()));
    }
    let non_root = of_container
        .and_then(|s| s.run_as_non_root)
        .or(of_pod.and_then(|s| s.run_as_non_root))
        .unwrap_or(false);
    if non_root && user.uid == 0 {
        return Err(Error::unsupported(
            field("runAsNonRoot"),
            "the image's user is root: set runAsUser to another user",
        ));
    }
    Ok(user)
}

/// Reads files of a root file system that is not mounted: from the directories of its overlay, topmost first.
pub(crate) fn read_from_mounts(mounts: &[Mount], name: &str) -> Option<String> {
    layer_directories(mounts)
        .into_iter()
        .find_map(|directory| std::fs::read_to_string(directory.join(name)).ok())
}

fn layer_directories(mounts: &[Mount]) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for mount in mounts {
        if mount.r#type == "bind" {
            directories.push(PathBuf::from(&mount.source));
        }
        for prefix in ["upperdir=", "lowerdir="] {
            let values = mount.options.iter().filter_map(|option| option.strip_prefix(prefix));
            directories
                .extend(values.flat_map(|value| value.split(':')).map(|path| Path::new(path).to_owned()));
        }
    }
    directories
}

fn from_image(image_user: &str, passwd: &str, group: impl Fn() -> String) -> Option<User> {
    let (user, of_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let mut found = match user {
        "" => by_passwd(passwd, "0").unwrap_or_default(),
        name => match (by_passwd(passwd, name), name.parse()) {
            (Some(found), _) => found,
            (None, Ok(uid)) => User { uid, ..User::default() },
            (None, Err(_)) => return None,
        },
    };
    if !of_group.is_empty() {
        found.gid = match of_group.parse() {
            Ok(gid) => gid,
            Err(_) => field_of(&group(), of_group, 2)?,
        };
    }
    Some(found)
}

fn by_passwd(passwd: &str, user: &str) -> Option<User> {
    let line = passwd.lines().find(|line| {
        let mut fields = line.split(':');
        fields.next() == Some(user) || fields.nth(1) == Some(user)
    })?;
    let mut numbers = line.split(':').skip(2);
    Some(User {
        uid: numbers.next()?.parse().ok()?,
        gid: numbers.next()?.parse().ok()?,
        additional_gids: Vec::new(),
    })
}

fn field_of(text: &str, name: &str, index: usize) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n";

    fn user(pod: &Value, container: &Value, image: &str) -> Result<User, Error> {
        let pod = serde_json::from_value(json!({ "spec": pod })).unwrap();
        let container = serde_json::from_value(container.clone()).unwrap();
        resolve(&pod, &container, image, |name| match name {
            "etc/passwd" => Some(PASSWD.to_owned()),
            _ => Some("staff:x:50:".to_owned()),
        })
    }

    #[test]
    fn the_container_wins_over_the_pod_and_the_pod_over_the_image() {
        let pod =
            json!({ "containers": [], "securityContext": { "runAsUser": 7, "runAsGroup": 8, "fsGroup": 9 } });
        let plain = json!({ "name": "c" });
        let own = json!({ "name": "c", "securityContext": { "runAsUser": 1000 } });
        let none = json!({ "containers": [] });
        let expect = |uid, gid, groups: &[u32]| User { uid, gid, additional_gids: groups.to_vec() };
        assert_eq!(user(&pod, &own, "web").unwrap(), expect(1000, 8, &[9]));
        assert_eq!(user(&pod, &plain, "web").unwrap(), expect(7, 8, &[9]));
        assert_eq!(user(&none, &plain, "web").unwrap(), expect(1000, 1001, &[]));
        assert_eq!(user(&none, &plain, "web:staff").unwrap(), expect(1000, 50, &[]));
        assert_eq!(user(&none, &plain, "12:34").unwrap(), expect(12, 34, &[]));
        assert_eq!(user(&none, &plain, "").unwrap(), expect(0, 0, &[]));
    }

    #[test]
    fn a_root_image_is_refused_when_the_pod_must_not_be_root() {
        let pod = json!({ "containers": [], "securityContext": { "runAsNonRoot": true } });
        let error = user(&pod, &json!({ "name": "c" }), "").unwrap_err().to_string();
        assert!(error.contains("runAsUser"), "{error}");
    }
}
