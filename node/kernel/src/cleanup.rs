//! Removing everything that a node made, also after it was killed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    KernelError,
    bpf::pins::{Made, Pins, absent_is_fine, remove_directory},
    cgroup,
    net::{Namespace, Netlink, namespace::own_cookie},
    retire_masquerade,
};

/// Where a node left things.
#[derive(Clone, Debug)]
pub struct NodeFootprint {
    /// Its pin directory.
    pub bpffs_dir: PathBuf,
    /// Its cgroup, relative to the cgroup-v2 mount.
    pub cgroup_dir: PathBuf,
    /// Where network namespaces are mounted.
    pub netns_dir: PathBuf,
    /// How the names of its pods' namespaces begin; must not be empty.
    pub netns_prefix: String,
}

/// Removes links and maps, the cgroup with whatever runs in it, and the pods' namespaces. Does as much as it can and
/// may be called again; returns what could not be removed.
pub fn remove_node(node: &NodeFootprint) -> Vec<KernelError> {
    let mut failures = Vec::new();
    let mut note = |result: Result<(), KernelError>| {
        if let Err(error) = result {
            failures.push(error);
        }
    };
    note(cgroup::mount_point().and_then(|mount| {
        let relative = node.cgroup_dir.strip_prefix("/").unwrap_or(&node.cgroup_dir);
        if relative.as_os_str().is_empty() { Ok(()) } else { cgroup::remove(&mount.join(relative)) }
    }));
    match pod_namespaces(&node.netns_dir, &node.netns_prefix) {
        Ok(namespaces) => namespaces.iter().for_each(|namespace| note(namespace.remove())),
        Err(error) => note(Err(error)),
    }
    let pins = Pins::new(&node.bpffs_dir);
    // Links first: nothing may run that reads a map which is going away.
    note(remove_directory(&pins.links()));
    for directory in pins.all_maps() {
        note(remove_directory(&directory));
    }
    note(remove_from_stack(&pins));
    for text in [pins.layout(), pins.made(Made::Overlay), pins.options(), pins.made(Made::Masquerade)] {
        note(absent_is_fine(fs::remove_file(&text), &text));
    }
    note(absent_is_fine(fs::remove_dir(pins.root()), pins.root()));
    failures
}

/// Removes the overlay and what masquerades if they are in the network namespace of this thread. Another namespace takes its
/// own along.
fn remove_from_stack(pins: &Pins) -> Result<(), KernelError> {
    let own = own_cookie()?;
    let has_overlay = pins.has_made(Made::Overlay, own);
    if !has_overlay && !pins.has_made(Made::Masquerade, own) {
        return Ok(());
    }
    // The caller may be inside a runtime.
    std::thread::scope(|scope| {
        let removed = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(KernelError::Thread)?;
            runtime.block_on(async {
                if has_overlay {
                    Netlink::connect()?.delete_overlay().await?;
                }
                retire_masquerade(pins.root()).await
            })
        });
        removed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Namespaces in `directory` whose names begin with `prefix`; none for an empty prefix, which would be everybody's.
///
/// # Errors
/// The directory exists and cannot be read.
pub fn pod_namespaces(directory: &Path, prefix: &str) -> Result<Vec<Namespace>, KernelError> {
    if prefix.is_empty() {
        return Ok(Vec::new());
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KernelError::file("listing", directory)(error)),
    };
    let entries = entries.filter_map(Result::ok);
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    Ok(ours.map(|entry| Namespace::at(entry.path())).collect())
}
