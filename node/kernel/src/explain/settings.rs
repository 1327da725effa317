//! What the programs were told when they were loaded, kept beside the pins for whoever asks while no agent runs.

use std::{fmt, fs, ops::RangeInclusive, path::Path, str::FromStr};

use crate::{KernelError, ServiceOptions, bpf::pins::Pins};

/// What the programs were told when they were loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// A `FORWARD_*`.
    pub forwarding: u32,
    /// Where node ports are.
    pub node_ports: RangeInclusive<u16>,
    /// Ports to masquerade with.
    pub masquerade_ports: RangeInclusive<u16>,
    /// Sockets of pods are not translated.
    pub sockets_of_host_only: bool,
}

impl From<&ServiceOptions> for Settings {
    fn from(options: &ServiceOptions) -> Self {
        Self {
            forwarding: options.forwarding.number(),
            node_ports: options.node_ports.clone(),
            masquerade_ports: options.masquerade_ports.clone(),
            sockets_of_host_only: options.sockets_of_host_only,
        }
    }
}

impl Settings {
    /// Those of the dataplane under the pin directory.
    ///
    /// # Errors
    /// There is none, or it is another version's.
    pub fn kept(bpffs_dir: &Path) -> Result<Self, KernelError> {
        let path = Pins::new(bpffs_dir).options();
        let text = fs::read_link(&path).map_err(KernelError::file("reading", &path))?;
        let unknown = |()| std::io::Error::other(format!("{} is not understood", text.display()));
        text.to_string_lossy().parse().map_err(unknown).map_err(KernelError::file("reading", &path))
    }
}

/// As it is kept: `forwarding=1,node-ports=30000-32767,masquerade-ports=61000-65535,host-only=0`.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { forwarding, node_ports, masquerade_ports, sockets_of_host_only } = self;
        let range = |ports: &RangeInclusive<u16>| format!("{}-{}", ports.start(), ports.end());
        let (node, masquerade) = (range(node_ports), range(masquerade_ports));
        let host_only = u8::from(*sockets_of_host_only);
        write!(
            f,
            "forwarding={forwarding},node-ports={node},masquerade-ports={masquerade},host-only={host_only}"
        )
    }
}

impl FromStr for Settings {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let value = |name: &str| {
            let mut pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let number = |name| value(name)?.parse::<u32>().ok();
        let range = |name| {
            let (first, last) = value(name)?.split_once('-')?;
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        let read = || {
            Some(Self {
                forwarding: number("forwarding")?,
                node_ports: range("node-ports")?,
                masquerade_ports: range("masquerade-ports")?,
                sockets_of_host_only: number("host-only")? != 0,
            })
        };
        read().ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were_kept() {
        let settings = Settings {
            forwarding: 2,
            node_ports: 20_000..=20_100,
            masquerade_ports: 61_000..=61_000,
            sockets_of_host_only: true,
        };
        assert_eq!(settings.to_string().parse(), Ok(settings));
        let defaults = Settings::from(&ServiceOptions::default());
        assert_eq!(defaults.to_string().parse(), Ok(defaults.clone()));
        assert_eq!("forwarding=1".parse::<Settings>(), Err(()), "another version's");
    }

    #[test]
    fn a_directory_without_settings_is_named() {
        let error = Settings::kept(Path::new("/nonexistent/fairlead")).expect_err("there are none");
        assert!(error.to_string().contains("/nonexistent/fairlead/options"), "{error}");
    }
}
