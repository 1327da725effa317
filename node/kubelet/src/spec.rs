//! The OCI runtime specification of a container: a pure function of the pod, the image and what was prepared on disk.

pub(crate) mod capabilities;
pub(crate) mod resources;
pub(crate) mod user;

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use self::user::User;
use crate::oci::Defaults;

/// Paths in /proc that tell a container about the machine (the list of containerd and Docker).
const MASKED_PATHS: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A bind mount into the container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BindMount {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
    pub(crate) propagation: &'static str,
}

/// What the specification is made of.
pub(crate) struct SpecInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) image: &'a Defaults,
    pub(crate) user: &'a User,
    /// `NAME=value`, complete.
    pub(crate) env: Vec<String>,
    /// The process's arguments, complete.
    pub(crate) args: Vec<String>,
    pub(crate) mounts: Vec<BindMount>,
    pub(crate) hostname: &'a str,
    /// The network namespace to join.
    pub(crate) netns: &'a Path,
    /// Absolute path in every cgroup hierarchy.
    pub(crate) cgroups_path: String,
    pub(crate) pids_limit: Option<i64>,
}

/// The whole specification.
pub(crate) fn build(input: &SpecInput<'_>) -> Value {
    let security = input.container.security_context.as_ref();
    let privileged = security.and_then(|s| s.privileged).unwrap_or(false);
    let mut linux = json!({
        "namespaces": namespaces(input),
        "cgroupsPath": input.cgroups_path,
        "resources": resources::linux(input.container.resources.as_ref(), input.pids_limit, privileged),
        "sysctl": sysctls(input.pod),
    });
    if !privileged {
        linux["maskedPaths"] = json!(MASKED_PATHS);
        linux["readonlyPaths"] = json!(READONLY_PATHS);
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": process(input),
        "root": {
            "path": "rootfs",
            "readonly": security.and_then(|s| s.read_only_root_filesystem).unwrap_or(false),
        },
        "mounts": mounts(input, privileged),
        "linux": linux,
    });
    if !host_network(input.pod) {
        spec["hostname"] = json!(input.hostname);
    }
    spec
}

/// The process part; a command run in the container later is this with other arguments.
pub(crate) fn process(input: &SpecInput<'_>) -> Value {
    let security = input.container.security_context.as_ref();
    let privileged = security.and_then(|s| s.privileged).unwrap_or(false);
    let capabilities = capabilities::effective(security.and_then(|s| s.capabilities.as_ref()), privileged);
    // Capabilities do not reach a process of another user through the inheritable set.
    let granted = if input.user.uid == 0 || privileged { capabilities.clone() } else { Vec::new() };
    let directory = [input.container.working_dir.as_deref().unwrap_or(""), &input.image.working_dir, "/"]
        .into_iter()
        .find(|directory| !directory.is_empty())
        .unwrap_or("/");
    let mut env = input.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    json!({
        "terminal": false,
        "user": { "uid": input.user.uid, "gid": input.user.gid, "additionalGids": input.user.additional_gids },
        "args": input.args,
        "env": env,
        "cwd": directory,
        "capabilities": { "bounding": capabilities, "effective": granted, "permitted": granted },
        "noNewPrivileges": security.and_then(|s| s.allow_privilege_escalation) == Some(false),
        "oomScoreAdj": resources::oom_score_adj(input.pod, input.container),
    })
}

/// `command` and `args` over the image's entrypoint and arguments: a command replaces both, arguments only the latter.
pub(crate) fn arguments(container: &Container, image: &Defaults) -> Vec<String> {
    let command = container.command.clone().unwrap_or_default();
    let args = container.args.clone().unwrap_or_default();
    let image_args = || image.cmd.clone().unwrap_or_default();
    let (mut first, rest) = match (command.is_empty(), args.is_empty()) {
        (true, true) => (image.entrypoint.clone().unwrap_or_default(), image_args()),
        (true, false) => (image.entrypoint.clone().unwrap_or_default(), args),
        (false, _) => (command, args),
    };
    first.extend(rest);
    first
}

/// Whether the pod shares the node's network namespace.
pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn namespaces(input: &SpecInput<'_>) -> Value {
    let spec = input.pod.spec.as_ref();
    let mut namespaces = vec![json!({ "type": "mount" }), json!({ "type": "network", "path": input.netns })];
    if !spec.and_then(|s| s.host_pid).unwrap_or(false) {
        namespaces.push(json!({ "type": "pid" }));
    }
    if !spec.and_then(|s| s.host_ipc).unwrap_or(false) {
        namespaces.push(json!({ "type": "ipc" }));
    }
    if !host_network(input.pod) {
        namespaces.push(json!({ "type": "uts" }));
    }
    Value::Array(namespaces)
}

fn sysctls(pod: &Pod) -> Value {
    let sysctls = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|security| security.sysctls.as_ref());
    sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), json!(sysctl.value))).collect()
}

fn mounts(input: &SpecInput<'_>, privileged: bool) -> Value {
    let system = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let sys_access = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        system("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        system("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys_access]),
    ];
    // A parent is mounted before what lies in it.
    let mut binds = input.mounts.clone();
    binds.sort_by_key(|mount| mount.destination.matches('/').count());
    mounts.extend(binds.iter().map(|bind| {
        json!({
            "destination": bind.destination,
            "type": "bind",
            "source": bind.source,
            "options": ["rbind", bind.propagation, if bind.read_only { "ro" } else { "rw" }],
        })
    }));
    Value::Array(mounts)
}

#[cfg(test)]
mod tests;
