//! Loading the object and attaching its programs.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError},
    programs::{Program, ProgramInfo},
};
use fairlead_abi::names::{self, MapSpec, globals};

use super::{
    filter,
    link::{self, Attached, TCX_EGRESS, TCX_INGRESS, Target},
    object,
    pins::Pins,
};
use crate::{
    KernelError,
    features::{Helpers, has_tcx, raise_memory_limit},
};

/// The loaded programs. Their links are pinned; dropping this detaches nothing.
#[derive(Debug)]
pub(crate) struct Programs {
    ebpf: Ebpf,
    pins: Pins,
}

impl Programs {
    /// Loads every program; maps that are pinned are used again, others are made and pinned.
    pub(crate) fn load(pins: Pins, uplink: u32, flow_events: bool) -> Result<Self, KernelError> {
        pins.prepare()?;
        let flow_events = u32::from(flow_events);
        raise_memory_limit();
        let helpers = Helpers::of_this_kernel()?;
        let mut loader = EbpfLoader::new();
        helpers.switch(&mut loader);
        loader.override_global(globals::UPLINK_IFINDEX, &uplink, true);
        loader.override_global(globals::FLOW_EVENTS, &flow_events, true);
        for map in names::MAPS {
            loader.map_pin_path(map.name, pins.map(map.name));
        }
        let ebpf = loader.load(object::embedded()?).map_err(Box::new)?;
        let mut programs = Self { ebpf, pins };
        for name in names::cgroup::ALL.iter().chain(names::link::ALL) {
            programs.load_program(name)?;
        }
        Ok(programs)
    }

    /// Attaches all cgroup programs, or gives the pinned links the new ones.
    pub(crate) fn attach_cgroup(&self, directory: BorrowedFd<'_>) -> Result<(), KernelError> {
        for name in names::cgroup::ALL {
            let hook =
                link::cgroup_hook(name).ok_or(KernelError::Missing { kind: "hook for program", name })?;
            let pin = self.pins.cgroup_link(name);
            let attached = link::attach(self.fd(name)?, Target::Cgroup(directory), hook, &pin);
            attached.map_err(|source| KernelError::Link {
                name: (*name).to_owned(),
                operation: "attaching to the node's cgroup the",
                source,
            })?;
        }
        Ok(())
    }

    /// Attaches the uplink's program.
    pub(crate) fn attach_uplink(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        self.attach_interface(names::link::FROM_UPLINK, TCX_INGRESS, name, ifindex).map(drop)
    }

    /// Attaches the programs of a pod's host-side interface.
    pub(crate) fn attach_pod(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        self.attach_interface(names::link::FROM_POD, TCX_INGRESS, name, ifindex)?;
        self.attach_interface(names::link::TO_POD, TCX_EGRESS, name, ifindex)?;
        Ok(())
    }

    /// Removes the pins of a pod's links; the links go with them.
    pub(crate) fn detach_pod(&self, name: &str) -> Result<(), KernelError> {
        for program in [names::link::FROM_POD, names::link::TO_POD] {
            let pin = self.pins.interface_link(program, name);
            match std::fs::remove_file(&pin) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(KernelError::file("removing", pin)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A map by its specification, as the type that reads it.
    pub(crate) fn map<T>(&mut self, spec: MapSpec) -> Result<T, KernelError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let missing = KernelError::Missing { kind: "map", name: spec.name };
        let map = self.ebpf.take_map(spec.name).ok_or(missing)?;
        T::try_from(map).map_err(KernelError::map(spec.name, "opening"))
    }

    /// The object, for the reader of its logs.
    pub(crate) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// What the kernel says about the programs.
    pub(crate) fn info(&self) -> impl Iterator<Item = (&str, ProgramInfo)> {
        self.ebpf.programs().filter_map(|(name, program)| Some((name, program.info().ok()?)))
    }

    fn attach_interface(
        &mut self,
        program: &'static str,
        hook: u32,
        name: &str,
        ifindex: u32,
    ) -> Result<Attached, KernelError> {
        let pin = self.pins.interface_link(program, name);
        if !has_tcx() {
            return self.attach_filter(program, hook, name, &pin);
        }
        let attached = link::attach(self.fd(program)?, Target::Interface(ifindex), hook, &pin);
        attached.map_err(|source| KernelError::Link {
            name: format!("{program} of {name}"),
            operation: "attaching",
            source,
        })
    }

    fn attach_filter(
        &mut self,
        program: &'static str,
        hook: u32,
        interface: &str,
        note: &Path,
    ) -> Result<Attached, KernelError> {
        let Some(Program::SchedClassifier(classifier)) = self.ebpf.program_mut(program) else {
            return Err(KernelError::Missing { kind: "program of the expected type", name: program });
        };
        let attached = filter::attach(classifier, interface, hook, note);
        attached.map_err(|source| KernelError::Program { name: program, source: Box::new(source) })
    }

    fn load_program(&mut self, name: &'static str) -> Result<(), KernelError> {
        let missing = KernelError::Missing { kind: "program", name };
        let loaded = match self.ebpf.program_mut(name).ok_or(missing)? {
            Program::CgroupSockAddr(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => return Err(KernelError::Missing { kind: "program of the expected type", name }),
        };
        loaded.map_err(|source| KernelError::Program { name, source: Box::new(source) })
    }

    fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        let program = self.ebpf.program(name).ok_or(KernelError::Missing { kind: "program", name })?;
        let fd = match program {
            Program::CgroupSockAddr(program) => program.fd(),
            Program::SockOps(program) => program.fd(),
            Program::SchedClassifier(program) => program.fd(),
            _ => return Err(KernelError::Missing { kind: "program of the expected type", name }),
        };
        Ok(fd.map_err(|source| KernelError::Program { name, source: Box::new(source) })?.as_fd())
    }
}

/// Opens a pinned map a second time, so that two owners can use it.
pub(crate) fn open_pinned<T>(pins: &Pins, spec: MapSpec) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let data = MapData::from_pin(pins.map(spec.name)).map_err(KernelError::map(spec.name, "opening"))?;
    let map = Map::from_map_data(data).map_err(KernelError::map(spec.name, "opening"))?;
    T::try_from(map).map_err(KernelError::map(spec.name, "opening"))
}
