//! Volumes of a pod, prepared on the node's disk, and their mounts in containers.
//!
//! `emptyDir`, `configMap`, `secret`, `downwardAPI`, `projected` (of these) and `hostPath`. What is written from API
//! objects is written once, when the pod starts.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod, Volume,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    Error,
    downward::{self, PodFacts},
    references::{Data, References},
    spec::{BindMount, resources::value},
};

/// Mode of files without another one.
const FILE_MODE: i32 = 0o644;

/// A file to be written: contents and mode.
type Files = BTreeMap<PathBuf, (Vec<u8>, i32)>;

/// Where each volume of a pod is on the node, by name.
#[derive(Default, Debug)]
pub(crate) struct Volumes {
    paths: BTreeMap<String, PathBuf>,
}

/// Prepares all volumes of the pod below `directory`. Idempotent. Blocks.
pub(crate) fn prepare(
    pod: &Pod,
    references: &References,
    facts: &PodFacts,
    directory: &Path,
) -> Result<Volumes, Error> {
    let spec = pod.spec.as_ref();
    let group = spec.and_then(|s| s.security_context.as_ref()).and_then(|s| s.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    let mut volumes = Volumes::default();
    for volume in spec.and_then(|s| s.volumes.as_ref()).into_iter().flatten() {
        let path = directory.join(&volume.name);
        let path = if let Some(source) = &volume.empty_dir {
            empty_dir(source, &path, group)?;
            path
        } else if let Some(source) = &volume.host_path {
            host_path(source, &volume.name)?
        } else {
            write_files(&path, &files(pod, volume, references, facts)?, group)?;
            path
        };
        volumes.paths.insert(volume.name.clone(), path);
    }
    Ok(volumes)
}

/// Unmounts and removes what [`prepare`] made. Idempotent. Blocks.
pub(crate) fn remove(directory: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Only a memory-backed volume is a mount; for others this fails and changes nothing.
        let _not_a_mount = umount2(&entry.path(), MntFlags::MNT_DETACH);
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

impl Volumes {
    /// The mounts of a container.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        expand: impl Fn(&str) -> String,
    ) -> Result<Vec<BindMount>, Error> {
        let mut mounts = Vec::new();
        for wanted in container.volume_mounts.iter().flatten() {
            let field = || format!("container {}: volumeMount {}", container.name, wanted.mount_path);
            let root = self.paths.get(&wanted.name).ok_or_else(|| {
                Error::unsupported(field(), format!("the pod has no volume named {}", wanted.name))
            })?;
            let sub_path = wanted.sub_path_expr.as_ref().map(|text| expand(text)).or(wanted.sub_path.clone());
            let source = match sub_path.filter(|path| !path.is_empty()) {
                Some(path) => below(root, &path).map_err(|reason| Error::unsupported(field(), reason))?,
                None => root.clone(),
            };
            mounts.push(BindMount {
                source: source.to_string_lossy().into_owned(),
                destination: wanted.mount_path.clone(),
                read_only: wanted.read_only.unwrap_or(false),
                propagation: match wanted.mount_propagation.as_deref() {
                    Some("Bidirectional") => "rshared",
                    Some("HostToContainer") => "rslave",
                    _ => "rprivate",
                },
            });
        }
        Ok(mounts)
    }
}

/// A path inside the volume, made as a directory when absent; links must not lead out of it.
fn below(root: &Path, sub_path: &str) -> Result<PathBuf, String> {
    if Path::new(sub_path).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!("subPath {sub_path:?} must be relative and without \"..\""));
    }
    let path = root.join(sub_path);
    if !path.exists() {
        fs::create_dir_all(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    }
    let (real, real_root) = (path.canonicalize(), root.canonicalize());
    match (real, real_root) {
        (Ok(real), Ok(real_root)) if real.starts_with(&real_root) => Ok(real),
        _ => Err(format!("subPath {sub_path:?} leads out of the volume")),
    }
}

fn empty_dir(source: &EmptyDirVolumeSource, path: &Path, group: Option<u32>) -> Result<(), Error> {
    let fresh = !path.exists();
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    if fresh && source.medium.as_deref() == Some("Memory") {
        let size = source.size_limit.as_ref().and_then(value).map(|bytes| format!("size={bytes}"));
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, size.as_deref())
            .map_err(|errno| Error::file("mount a tmpfs on", path)(errno.into()))?;
    }
    own(path, group, 0o777)
}

fn own(path: &Path, group: Option<u32>, mode: u32) -> Result<(), Error> {
    let set_group = if group.is_some() { 0o2000 } else { 0 };
    if group.is_some() {
        chown(path, None, group).map_err(Error::file("change the group of", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | set_group))
        .map_err(Error::file("change the mode of", path))
}

fn host_path(source: &HostPathVolumeSource, volume: &str) -> Result<PathBuf, Error> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or("");
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(&path).map_err(Error::file("create", &path))?,
        "FileOrCreate" if !path.exists() => {
            fs::File::create(&path).map_err(Error::file("create", &path))?;
        }
        _ => {}
    }
    let metadata = fs::metadata(&path).map_err(Error::file("look at", &path))?;
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => metadata.is_dir(),
        "File" | "FileOrCreate" => metadata.is_file(),
        _ => true,
    };
    if fits {
        Ok(path)
    } else {
        Err(Error::unsupported(
            format!("volume {volume}: hostPath"),
            format!("{} is not a {kind}", source.path),
        ))
    }
}

fn files(pod: &Pod, volume: &Volume, references: &References, facts: &PodFacts) -> Result<Files, Error> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        let data = references.config_map(&source.name, source.optional)?;
        add_keys(&mut files, data, source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        let data = references.secret(source.secret_name.as_deref().unwrap_or(""), source.optional)?;
        add_keys(&mut files, data, source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        add_fields(&mut files, pod, source.items.as_deref(), facts, mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        for projection in source.sources.iter().flatten() {
            if let Some(source) = &projection.config_map {
                let data = references.config_map(&source.name, source.optional)?;
                add_keys(&mut files, data, source.items.as_deref(), mode)?;
            } else if let Some(source) = &projection.secret {
                let data = references.secret(&source.name, source.optional)?;
                add_keys(&mut files, data, source.items.as_deref(), mode)?;
            } else if let Some(source) = &projection.downward_api {
                add_fields(&mut files, pod, source.items.as_deref(), facts, mode)?;
            } else {
                return Err(Error::unsupported(
                    format!("volume {}: projected", volume.name),
                    "use configMap, secret or downwardAPI sources",
                ));
            }
        }
    } else {
        return Err(Error::unsupported(
            format!("volume {}", volume.name),
            "use emptyDir, configMap, secret, downwardAPI, projected or hostPath",
        ));
    }
    Ok(files)
}

fn add_keys(
    files: &mut Files,
    data: Option<&Data>,
    items: Option<&[KeyToPath]>,
    mode: i32,
) -> Result<(), Error> {
    let Some(data) = data else { return Ok(()) };
    match items {
        None => {
            files.extend(data.iter().map(|(key, value)| (PathBuf::from(key), (value.clone(), mode))));
        }
        Some(items) => {
            for item in items {
                let value = data
                    .get(&item.key)
                    .ok_or_else(|| Error::unsupported(format!("key {}", item.key), "it does not exist"))?;
                files.insert(relative(&item.path)?, (value.clone(), item.mode.unwrap_or(mode)));
            }
        }
    }
    Ok(())
}

fn add_fields(
    files: &mut Files,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    facts: &PodFacts,
    mode: i32,
) -> Result<(), Error> {
    let nobody = Container::default();
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, facts)?,
            (None, Some(resource)) => downward::resource(pod, &nobody, resource)?,
            (None, None) => String::new(),
        };
        files.insert(relative(&item.path)?, (text.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(())
}

fn relative(path: &str) -> Result<PathBuf, Error> {
    let path_buf = PathBuf::from(path);
    let normal = path_buf.components().all(|part| matches!(part, Component::Normal(_)));
    if normal {
        Ok(path_buf)
    } else {
        Err(Error::unsupported("volume item path", format!("{path:?} must be relative")))
    }
}

/// Writes the files as upstream does: in a directory of their own behind the link `..data`, so that all of them can be
/// exchanged at once.
fn write_files(directory: &Path, files: &Files, group: Option<u32>) -> Result<(), Error> {
    let data = directory.join("..v1");
    fs::create_dir_all(&data).map_err(Error::file("create", &data))?;
    for (name, (contents, mode)) in files {
        let path = data.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        fs::write(&path, contents).map_err(Error::file("write", &path))?;
        own(&path, None, u32::try_from(*mode).unwrap_or(0o644) & 0o777)?;
        if group.is_some() {
            chown(&path, None, group).map_err(Error::file("change the group of", &path))?;
        }
    }
    link("..v1", &directory.join("..data"))?;
    for name in files.keys().filter_map(|name| name.components().next()) {
        let name = Path::new(name.as_os_str());
        link(Path::new("..data").join(name), &directory.join(name))?;
    }
    own(directory, group, 0o755)
}

fn link(target: impl AsRef<Path>, path: &Path) -> Result<(), Error> {
    match symlink(target, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::file("link", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(volume: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" },
            "spec": { "containers": [], "volumes": [volume] } }))
        .unwrap()
    }

    fn prepared(directory: &Path, volume: &serde_json::Value) -> Result<Volumes, Error> {
        let references = References::of(&[("settings", &[("a", "1"), ("b", "2")])], &[]);
        prepare(&pod(volume), &references, &PodFacts::default(), directory)
    }

    #[test]
    fn a_config_map_is_visible_as_files_behind_one_link() {
        let directory = tempfile::tempdir().unwrap();
        prepared(directory.path(), &json!({ "name": "v", "configMap": { "name": "settings" } })).unwrap();
        let volume = directory.path().join("v");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_link(volume.join("b")).unwrap(), Path::new("..data/b"));
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let directory = tempfile::tempdir().unwrap();
        let volume = json!({ "name": "v", "configMap": { "name": "settings",
            "items": [{ "key": "a", "path": "deep/file", "mode": 0o400 }] } });
        prepared(directory.path(), &volume).unwrap();
        let file = directory.path().join("v/deep/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
        assert!(!directory.path().join("v/b").exists());
    }

    #[test]
    fn a_sub_path_cannot_leave_its_volume() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = prepared(directory.path(), &json!({ "name": "v", "emptyDir": {} })).unwrap();
        symlink("/etc", directory.path().join("v/out")).unwrap();
        for (sub_path, works) in [("inner", true), ("../x", false), ("out", false), ("/etc", false)] {
            let container: Container = serde_json::from_value(json!({ "name": "c", "volumeMounts": [
                { "name": "v", "mountPath": "/data", "subPath": sub_path }] }))
            .unwrap();
            assert_eq!(volumes.mounts(&container, str::to_owned).is_ok(), works, "{sub_path}");
        }
    }

    #[test]
    fn an_unknown_kind_of_volume_is_refused_with_the_known_ones() {
        let directory = tempfile::tempdir().unwrap();
        let error =
            prepared(directory.path(), &json!({ "name": "v", "nfs": { "server": "s", "path": "/" } }));
        assert!(error.unwrap_err().to_string().contains("emptyDir"));
    }
}
