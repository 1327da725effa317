//! The machine as `up` and `down` see it: processes, mounts, cgroups, network namespaces. Everything here can be
//! done twice.

pub(crate) mod cgroups;
pub(crate) mod mounts;
pub(crate) mod netns;
pub(crate) mod processes;
