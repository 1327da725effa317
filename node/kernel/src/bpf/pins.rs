//! The node's directory in the bpf file system: `<dir>/maps`, `<dir>/links`, `<dir>/layout`,
//! `<dir>/options`.
//!
//! `layout` says what the maps look like. Where they look otherwise than this build's, a new set of maps is made in
//! `<dir>/maps-next` while the old programs go on with the old one; [`Pins::finish`] makes it the one that counts.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use fairlead_abi::names;

use super::filter;
use crate::KernelError;

/// How the pinned maps differ from those that this build asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Difference {
    /// They do not, or there are none.
    None,
    /// They are of this version, or of this build's but of other capacities; 0 is one that this build knows nothing of.
    Layout(u32),
}

impl Difference {
    /// A layout begins with the version; what follows are capacities.
    fn between(pinned: Option<&Path>, layout: &str) -> Self {
        let version = |layout: &str| layout.split('-').next().and_then(|version| version.parse::<u32>().ok());
        match pinned.map(Path::to_string_lossy) {
            None => Self::None,
            Some(pinned) if pinned == layout => Self::None,
            Some(pinned) => {
                let known =
                    version(&pinned).filter(|pinned| version(layout).is_some_and(|own| *pinned <= own));
                Self::Layout(known.unwrap_or(0))
            }
        }
    }
}

/// Paths of everything that is pinned for one node.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    /// Maps go to `maps-next`.
    next: bool,
}

impl Pins {
    /// The pins under `root`. The bpf file system reserves names with dots, so they become underscores.
    pub(crate) fn new(root: &Path) -> Self {
        let root = root.components().map(|part| part.as_os_str().to_string_lossy().replace('.', "_"));
        Self { root: root.collect(), next: false }
    }

    /// Makes the directories. Maps of another layout are left alone, and from here on these pins are about a new set.
    pub(crate) fn prepare(&mut self, layout: &str) -> Result<Difference, KernelError> {
        let pinned = match fs::read_link(self.layout()) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(KernelError::file("reading", self.layout())(error)),
        };
        let difference = Difference::between(pinned.as_deref(), layout);
        self.next = difference != Difference::None;
        // Whoever left it behind did not get to use it, or was about to be followed by us.
        remove_directory(&self.root.join(NEXT))?;
        for directory in [self.maps(), self.links()] {
            fs::create_dir_all(&directory).map_err(KernelError::file("creating", directory))?;
        }
        if pinned.is_none() {
            self.write_layout(layout)?;
        }
        Ok(difference)
    }

    /// The new set of maps is in use: it takes the place of the old one. Interrupted at any point, this is made up for by
    /// the next start.
    pub(crate) fn finish(&mut self, layout: &str) -> Result<(), KernelError> {
        if self.next {
            let (old, new) = (self.root.join(MAPS), self.root.join(NEXT));
            remove_directory(&old)?;
            fs::rename(&new, &old).map_err(KernelError::file("renaming", new))?;
            self.next = false;
            self.write_layout(layout)?;
        }
        Ok(())
    }

    fn write_layout(&self, layout: &str) -> Result<(), KernelError> {
        self.write_text(&self.layout(), layout)
    }

    /// Notes that this is in the network namespace with this cookie.
    pub(crate) fn write_made(&self, what: Made, cookie: u64) -> Result<(), KernelError> {
        self.write_text(&self.made(what), &cookie.to_string())
    }

    /// Whether this is in the network namespace with this cookie.
    pub(crate) fn has_made(&self, what: Made, cookie: u64) -> bool {
        fs::read_link(self.made(what)).is_ok_and(|found| found == Path::new(&cookie.to_string()))
    }

    /// Where that is noted.
    pub(crate) fn made(&self, what: Made) -> PathBuf {
        self.root.join(match what {
            Made::Overlay => "overlay",
            Made::Masquerade => "masquerade",
        })
    }

    /// Notes what the programs have been told.
    pub(crate) fn write_options(&self, options: &str) -> Result<(), KernelError> {
        self.write_text(&self.options(), options)
    }

    /// The bpf file system holds no ordinary files; a symbolic link can carry a text.
    fn write_text(&self, path: &Path, text: &str) -> Result<(), KernelError> {
        let new = self.root.join("text-next");
        absent_is_fine(fs::remove_file(&new), &new)?;
        symlink(text, &new).map_err(KernelError::file("creating", &new))?;
        fs::rename(&new, path).map_err(KernelError::file("renaming", new))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join(if self.next { NEXT } else { MAPS })
    }

    /// Every directory of maps, also one that an interrupted change of layout has left.
    pub(crate) fn all_maps(&self) -> [PathBuf; 2] {
        [MAPS, NEXT].map(|name| self.root.join(name))
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The map that is to be replaced.
    pub(crate) fn old_map(&self, name: &str) -> PathBuf {
        self.root.join(MAPS).join(name)
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

    /// Pins of the links that these programs have, on whatever interface.
    pub(crate) fn interface_links(&self, programs: &[&str]) -> Result<Vec<PathBuf>, KernelError> {
        let entries = fs::read_dir(self.links()).map_err(KernelError::file("listing", self.links()))?;
        let of_one = |name: &str| {
            programs
                .iter()
                .any(|program| name.strip_prefix(program).is_some_and(|rest| rest.starts_with('-')))
        };
        let pins = entries.filter_map(Result::ok).filter(|pin| of_one(&pin.file_name().to_string_lossy()));
        Ok(pins.map(|pin| pin.path()).collect())
    }

    /// Pin of the link of the program in an interface's driver, attached with these `XDP_FLAGS_*`.
    pub(crate) fn driver_link(&self, interface: &str, flags: u32) -> PathBuf {
        self.interface_link(&format!("{}-{flags}", names::driver::FROM_WIRE), interface)
    }

    pub(crate) fn layout(&self) -> PathBuf {
        self.root.join("layout")
    }

    /// Where it is noted what the programs have been told.
    pub(crate) fn options(&self) -> PathBuf {
        self.root.join("options")
    }
}

/// What a node makes in its network namespace beside links and pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Made {
    /// The overlay's interface.
    Overlay,
    /// The table with which the host's stack masquerades.
    Masquerade,
}

const MAPS: &str = "maps";
const NEXT: &str = "maps-next";

/// Removes a directory of pins, if it exists.
pub(crate) fn remove_directory(directory: &Path) -> Result<(), KernelError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return absent_is_fine(Err(error), directory),
    };
    for entry in entries.filter_map(Result::ok) {
        filter::detach_noted(&entry.path());
        absent_is_fine(fs::remove_file(entry.path()), &entry.path())?;
    }
    absent_is_fine(fs::remove_dir(directory), directory)
}

/// Removing what is not there is done.
pub(crate) fn absent_is_fine(result: io::Result<()>, path: &Path) -> Result<(), KernelError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(KernelError::file("removing", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_differs_by_its_version_or_by_capacities() {
        let table = [
            (None, "2", Difference::None),
            (Some("2"), "2", Difference::None),
            (Some("2-conntrack-9"), "2-conntrack-9", Difference::None),
            (Some("2"), "2-conntrack-9", Difference::Layout(2)),
            (Some("2-slots-9"), "2", Difference::Layout(2)),
            (Some("1"), "2", Difference::Layout(1)),
            (Some("1-slots-9"), "2", Difference::Layout(1)),
            (Some("20"), "2", Difference::Layout(0)),
            (Some("x"), "2", Difference::Layout(0)),
        ];
        for (pinned, layout, expected) in table {
            assert_eq!(Difference::between(pinned.map(Path::new), layout), expected, "{pinned:?}, {layout}");
        }
    }

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
