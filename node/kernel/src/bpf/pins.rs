//! The node's directory in the bpf file system: `<dir>/maps`, `<dir>/links`, `<dir>/layout`.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use fairlead_abi::LAYOUT_VERSION;

use crate::KernelError;

/// Paths of everything that is pinned for one node.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins under `root`. The bpf file system reserves names with dots, so they become underscores.
    pub(crate) fn new(root: &Path) -> Self {
        let root = root.components().map(|part| part.as_os_str().to_string_lossy().replace('.', "_"));
        Self { root: root.collect() }
    }

    /// Makes the directories and checks that what is pinned there has our layout.
    pub(crate) fn prepare(&self) -> Result<(), KernelError> {
        for directory in [self.maps(), self.links()] {
            fs::create_dir_all(&directory).map_err(KernelError::file("creating", directory))?;
        }
        // The bpf file system holds no ordinary files; a symbolic link can carry a text.
        let layout = self.layout();
        match fs::read_link(&layout) {
            Ok(found) if found == Path::new(&LAYOUT_VERSION.to_string()) => Ok(()),
            Ok(found) => Err(KernelError::Layout {
                path: self.maps(),
                found: found.to_string_lossy().into_owned(),
                expected: LAYOUT_VERSION,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                symlink(LAYOUT_VERSION.to_string(), &layout).map_err(KernelError::file("creating", layout))
            }
            Err(error) => Err(KernelError::file("reading", layout)(error)),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Pin of the link of a program on the node's cgroup.
    pub(crate) fn cgroup_link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// Pin of the link of a program on an interface.
    pub(crate) fn interface_link(&self, program: &str, interface: &str) -> PathBuf {
        self.links().join(format!("{program}-{}", interface.replace('.', "_")))
    }

    pub(crate) fn layout(&self) -> PathBuf {
        self.root.join("layout")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_become_names_that_the_bpf_file_system_takes() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/fairlead/node-1.example"));
        assert_eq!(pins.map("PODS"), Path::new("/sys/fs/bpf/fairlead/node-1_example/maps/PODS"));
        assert_eq!(
            pins.interface_link("from_uplink", "eth0.12"),
            Path::new("/sys/fs/bpf/fairlead/node-1_example/links/from_uplink-eth0_12")
        );
    }
}
