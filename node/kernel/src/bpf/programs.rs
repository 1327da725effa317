//! Loading the object and attaching its programs.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError},
    programs::{Program, ProgramInfo},
};
use fairlead_abi::names::{self, MapSpec, globals};

use super::{
    carry::Carried,
    filter,
    link::{self, Attached, TCX_EGRESS, TCX_INGRESS, Target, XDP},
    load, object,
    pins::{Difference, Pins, absent_is_fine},
};
use crate::{
    Carriage, KernelError, ServiceOptions,
    features::{Helpers, has_tcx, raise_memory_limit},
};

/// What the programs are told before they are loaded.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) uplink: u32,
    /// 0 when there is none.
    pub(crate) overlay: u32,
    /// Cookie of the host's network namespace.
    pub(crate) host_netns: u64,
    pub(crate) flow_events: bool,
    pub(crate) options: &'a ServiceOptions,
}

/// The loaded programs. Their links are pinned; dropping this detaches nothing.
#[derive(Debug)]
pub(crate) struct Programs {
    ebpf: Ebpf,
    pins: Pins,
    layout: String,
    /// What is attached.
    attached: Vec<Attachment>,
    /// Links that shall get these programs once the new maps are filled; none without a change of layout.
    waiting: Option<Vec<Attachment>>,
    /// What goes from the old maps to the new ones.
    carried: Carried,
}

/// A program on a hook.
#[derive(Debug)]
struct Attachment {
    program: &'static str,
    hook: u32,
    target: OwnTarget,
    pin: PathBuf,
    what: String,
}

/// A [`Target`] to keep.
#[derive(Debug)]
enum OwnTarget {
    Cgroup(OwnedFd),
    Interface(u32),
    Driver { interface: u32, flags: u32 },
}

impl OwnTarget {
    fn borrow(&self) -> Target<'_> {
        match self {
            Self::Cgroup(directory) => Target::Cgroup(directory.as_fd()),
            Self::Interface(ifindex) => Target::Interface(*ifindex),
            Self::Driver { interface, flags } => Target::Driver { interface: *interface, flags: *flags },
        }
    }

    /// Whether programs are filters there, not links.
    fn has_filter(&self) -> bool {
        matches!(self, Self::Interface(_)) && !has_tcx()
    }

    fn exists(&self) -> bool {
        match self {
            Self::Cgroup(_) => true,
            Self::Interface(index) | Self::Driver { interface: index, .. } => {
                nix::net::if_::if_indextoname(*index).is_ok()
            }
        }
    }
}

/// [`Programs`] for several owners.
#[derive(Clone, Debug)]
pub(crate) struct SharedPrograms(Arc<Mutex<Programs>>);

impl SharedPrograms {
    pub(crate) fn new(programs: Programs) -> Self {
        Self(Arc::new(Mutex::new(programs)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Programs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Programs {
    /// Loads every program; maps that are pinned are used again, others are made and pinned. Where the pinned maps are
    /// of another layout, those that differ are made anew and no link changes until [`Self::switch`].
    pub(crate) fn load(mut pins: Pins, place: &Place<'_>) -> Result<Self, KernelError> {
        let layout = place.options.capacities.layout();
        let difference = pins.prepare(&layout)?;
        let other = difference != Difference::None;
        if other {
            tracing::info!(
                layout,
                "the pinned maps have another layout; filling new ones before they are used"
            );
        }
        let options = place.options;
        let carried = match difference {
            Difference::Layout(version) => Carried::keep(&pins, &options.capacities.chosen(), version)?,
            Difference::None => Carried::default(),
        };
        let numbers = [
            (globals::UPLINK_IFINDEX, place.uplink),
            (globals::OVERLAY_IFINDEX, place.overlay),
            (globals::OVERLAY_PORT, place.options.overlay_port.into()),
            (globals::CARRIES, (options.carriage != Carriage::Rules).into()),
            (globals::FLOW_EVENTS, place.flow_events.into()),
            (globals::FORWARDING, options.forwarding.number()),
            (globals::SOCKETS_OF_HOST_ONLY, options.sockets_of_host_only.into()),
            (globals::NODE_PORT_FIRST, (*options.node_ports.start()).into()),
            (globals::NODE_PORT_LAST, (*options.node_ports.end()).into()),
            (globals::MASQUERADE_FIRST, (*options.masquerade_ports.start()).into()),
            (globals::MASQUERADE_LAST, (*options.masquerade_ports.end()).into()),
            (globals::MASQUERADE_MARK, options.masquerade_mark),
        ];
        raise_memory_limit();
        let helpers = Helpers::of_this_kernel()?;
        let mut loader = EbpfLoader::new();
        helpers.switch(&mut loader);
        for (name, number) in &numbers {
            loader.override_global(name, number, true);
        }
        loader.override_global(globals::HOST_NETNS, &place.host_netns, true);
        for (map, capacity) in options.capacities.chosen() {
            loader.map_max_entries(map.name, capacity);
        }
        for map in names::MAPS {
            loader.map_pin_path(map.name, pins.map(map.name));
        }
        let ebpf = loader.load(object::embedded()?).map_err(Box::new)?;
        let waiting = other.then(Vec::new);
        let mut programs = Self { ebpf, pins, layout, attached: Vec::new(), waiting, carried };
        for name in names::cgroup::ALL.iter().chain(names::link::ALL) {
            programs.load_program(name)?;
        }
        Ok(programs)
    }

    /// Where the maps are that these programs use.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Attaches all cgroup programs, or gives the pinned links the new ones.
    pub(crate) fn attach_cgroup(&mut self, directory: BorrowedFd<'_>) -> Result<(), KernelError> {
        for name in names::cgroup::ALL {
            let hook =
                link::cgroup_hook(name).ok_or(KernelError::Missing { kind: "hook for program", name })?;
            let pin = self.pins.cgroup_link(name);
            let what = format!("{name} of the node's cgroup");
            let directory = directory.try_clone_to_owned();
            let directory = directory.map_err(KernelError::file("opening", "the node's cgroup"))?;
            let target = OwnTarget::Cgroup(directory);
            self.attach(Attachment { program: name, hook, target, pin, what })?;
        }
        Ok(())
    }

    /// Attaches the programs of the uplink, or of another interface by which clients come.
    pub(crate) fn attach_uplink(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        self.attach_interface(names::link::FROM_UPLINK, TCX_INGRESS, name, ifindex)?;
        self.attach_interface(names::link::TO_UPLINK, TCX_EGRESS, name, ifindex)
    }

    /// Tells the programs that the uplink has this index now.
    pub(crate) fn set_uplink(&mut self, ifindex: u32) -> Result<(), KernelError> {
        let name = globals::CHANGING;
        let map = self.ebpf.map_mut(name).ok_or(KernelError::Missing { kind: "map", name })?;
        let set = Array::<_, u32>::try_from(map).and_then(|mut map| map.set(0, ifindex, 0));
        set.map_err(KernelError::map(name, "writing"))
    }

    /// Takes those programs from all interfaces but these.
    pub(crate) fn keep_uplinks<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), KernelError> {
        let programs = [names::link::FROM_UPLINK, names::link::TO_UPLINK];
        let pins = |name: &str| programs.map(|program| self.pins.interface_link(program, name));
        let kept: BTreeSet<PathBuf> = names.flat_map(pins).collect();
        let mut pinned = self.pins.interface_links(&programs)?;
        pinned.retain(|pin| !kept.contains(pin));
        pinned.iter().try_for_each(|pin| {
            tracing::info!(link = %pin.display(), "clients are no longer served on an interface");
            // A filter does not go with its note.
            filter::detach_noted(pin);
            self.remove_link(pin)
        })
    }

    /// Attaches the overlay's program.
    pub(crate) fn attach_overlay(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        self.attach_interface(names::link::FROM_OVERLAY, TCX_INGRESS, name, ifindex)
    }

    /// Attaches the uplink's program in its driver. While the maps change their layout, only a program that is attached
    /// already is replaced, with the others: a new one would begin connections that nobody else knows. False when it is not
    /// attached for this reason.
    pub(crate) fn attach_driver(
        &mut self,
        name: &str,
        ifindex: u32,
        flags: u32,
    ) -> Result<bool, KernelError> {
        let program = names::driver::FROM_WIRE;
        // Another interface may have been the uplink before.
        if self.fd(program).is_err() {
            self.load_program(program)?;
        }
        let pin = self.pins.driver_link(name, flags);
        if self.waiting.is_some() && !pin.exists() {
            return Ok(false);
        }
        let what = format!("{program} of {name}");
        let target = OwnTarget::Driver { interface: ifindex, flags };
        self.attach(Attachment { program, hook: XDP, target, pin, what })?;
        Ok(true)
    }

    /// Removes the pin of the uplink's program in its driver; the link goes with it.
    pub(crate) fn detach_driver(&mut self, name: &str, flags: u32) -> Result<(), KernelError> {
        self.remove_link(&self.pins.driver_link(name, flags))
    }

    /// Attaches the programs of a pod's host-side interface.
    pub(crate) fn attach_pod(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        self.attach_interface(names::link::FROM_POD, TCX_INGRESS, name, ifindex)?;
        self.attach_interface(names::link::TO_POD, TCX_EGRESS, name, ifindex)
    }

    /// Removes the pins of an interface's links; the links go with them.
    pub(crate) fn detach_interface(&mut self, name: &str) -> Result<(), KernelError> {
        names::link::ALL
            .iter()
            .try_for_each(|program| self.remove_link(&self.pins.interface_link(program, name)))
    }

    fn remove_link(&mut self, pin: &Path) -> Result<(), KernelError> {
        if let Some(waiting) = &mut self.waiting {
            waiting.retain(|link| link.pin != pin);
        }
        self.attached.retain(|link| link.pin != pin);
        absent_is_fine(std::fs::remove_file(pin), pin)
    }

    /// The new maps are filled: gives all links the new programs and removes the old maps. Nothing happens when there was
    /// no change of layout.
    pub(crate) fn switch(&mut self) -> Result<(), KernelError> {
        let Some(mut waiting) = self.waiting.take() else { return Ok(()) };
        let switched = self.switch_links(&mut waiting);
        if switched.is_err() {
            self.waiting = Some(waiting);
        }
        switched
    }

    fn switch_links(&mut self, waiting: &mut Vec<Attachment>) -> Result<(), KernelError> {
        self.carried.copy(&self.pins)?;
        while let Some(link) = waiting.pop() {
            match self.attach_now(&link) {
                Ok(_) => self.note(link),
                Err(error) => {
                    waiting.push(link);
                    return Err(error);
                }
            }
        }
        // What has begun between the two.
        self.carried.copy(&self.pins)?;
        tracing::info!(layout = self.layout, "the new maps are in use");
        self.pins.finish(&self.layout)
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
    ) -> Result<(), KernelError> {
        let pin = self.pins.interface_link(program, name);
        let what = format!("{program} of {name}");
        self.attach(Attachment { program, hook, target: OwnTarget::Interface(ifindex), pin, what })
    }

    /// Attaches now, or later where that would take a hook from a program whose maps are filled.
    fn attach(&mut self, link: Attachment) -> Result<(), KernelError> {
        let of_pod = [names::link::FROM_POD, names::link::TO_POD].contains(&link.program);
        match &mut self.waiting {
            Some(waiting) if !of_pod || link.pin.exists() => {
                waiting.retain(|other| other.pin != link.pin);
                waiting.push(link);
                Ok(())
            }
            _ => {
                self.attach_now(&link)?;
                self.note(link);
                Ok(())
            }
        }
    }

    fn note(&mut self, link: Attachment) {
        self.attached.retain(|other| other.pin != link.pin);
        self.attached.push(link);
    }

    /// Puts back the links that somebody has taken away, and gives the others the programs that they had. Returns what had to
    /// be put right. Links of an interface that is gone have nowhere to go.
    pub(crate) fn repair(&mut self) -> Vec<String> {
        if self.waiting.is_some() {
            return Vec::new();
        }
        let mut repaired = Vec::new();
        let mut attached = std::mem::take(&mut self.attached);
        attached.retain(|link| link.target.exists());
        for link in &attached {
            match self.repair_link(link) {
                Ok(false) => {}
                Ok(true) => repaired.push(format!("the eBPF program {}", link.what)),
                Err(error) => tracing::error!(%error, "an eBPF program that is gone cannot be put back"),
            }
        }
        self.attached = attached;
        repaired
    }

    fn repair_link(&mut self, link: &Attachment) -> Result<bool, KernelError> {
        // A filter has no object that could be asked; replacing it tells whether there was one.
        if !link.target.has_filter() {
            let own = self.id(link.program)?;
            let whole = link::present(&link.pin).is_ok_and(|link| link.is_attached() && link.program == own);
            return if whole { Ok(false) } else { self.attach_now(link).map(|_| true) };
        }
        Ok(self.attach_now(link)? == Attached::New)
    }

    fn attach_now(&mut self, link: &Attachment) -> Result<Attached, KernelError> {
        if let OwnTarget::Interface(ifindex) = link.target
            && link.target.has_filter()
        {
            return self.attach_filter(link, ifindex);
        }
        let attached = link::attach(self.fd(link.program)?, link.target.borrow(), link.hook, &link.pin);
        attached.map_err(|source| KernelError::Link {
            name: link.what.clone(),
            operation: "attaching",
            source,
        })
    }

    fn attach_filter(&mut self, link: &Attachment, ifindex: u32) -> Result<Attached, KernelError> {
        let name = link.program;
        let Some(Program::SchedClassifier(classifier)) = self.ebpf.program_mut(name) else {
            return Err(KernelError::Missing { kind: "program of the expected type", name });
        };
        let interface = nix::net::if_::if_indextoname(ifindex)
            .map_err(|errno| KernelError::file("looking up the interface of", &link.pin)(errno.into()))?;
        let attached = filter::attach(classifier, &interface.to_string_lossy(), link.hook, &link.pin);
        attached.map_err(|source| KernelError::Program { name, source: Box::new(source) })
    }

    fn load_program(&mut self, name: &'static str) -> Result<(), KernelError> {
        let missing = KernelError::Missing { kind: "program", name };
        let loaded = load::load(self.ebpf.program_mut(name).ok_or(missing)?);
        loaded.map_err(|source| KernelError::Program { name, source: Box::new(source) })
    }

    fn id(&self, name: &'static str) -> Result<u32, KernelError> {
        let program = self.ebpf.program(name).ok_or(KernelError::Missing { kind: "program", name })?;
        let info =
            program.info().map_err(|source| KernelError::Program { name, source: Box::new(source) })?;
        Ok(info.id())
    }

    fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        let program = self.ebpf.program(name).ok_or(KernelError::Missing { kind: "program", name })?;
        let fd = match program {
            Program::CgroupSockAddr(program) => program.fd(),
            Program::CgroupSock(program) => program.fd(),
            Program::SockOps(program) => program.fd(),
            Program::SchedClassifier(program) => program.fd(),
            Program::Xdp(program) => program.fd(),
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
