//! Starting: a pod's surroundings once, then its containers.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use containerd_client::types::Mount;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    labels::{self, container_id},
    record::{State, Termination},
    worker::{Signal, Worker},
};
use crate::{
    Error,
    containerd::NewContainer,
    downward::PodFacts,
    env,
    image::{Image, ImageError},
    logs, pod_files,
    probe::{self, Action, ProbeKind, Prober},
    references::References,
    spec::{self, BindMount, SpecInput, user},
    volumes::{self, Volumes},
};

/// Pauses between attempts to set a pod up.
const SANDBOX_RETRY_FIRST: Duration = Duration::from_secs(1);
const SANDBOX_RETRY_MAX: Duration = Duration::from_secs(60);
/// Pause before a broken wait is repeated.
const WAIT_RETRY: Duration = Duration::from_millis(500);
/// Longest run of a postStart hook.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Exit code of a container that could not be started (as containerd's CRI plugin reports it).
const EXIT_CODE_NOT_STARTED: i32 = 128;

/// What a pod's containers share.
pub(crate) struct Sandbox {
    pub(super) addresses: Vec<IpAddr>,
    netns: PathBuf,
    volumes: Volumes,
    references: References,
}

/// Why a container was not started.
struct StartError {
    /// The `reason` of its waiting state.
    reason: &'static str,
    message: String,
}

impl StartError {
    fn new(reason: &'static str, error: &Error) -> Self {
        Self { reason, message: error.to_string() }
    }
}

impl Worker {
    /// Makes the network, the files and the volumes, once. On failure tells why and plans the next attempt.
    pub(super) async fn ensure_sandbox(&mut self) -> bool {
        if self.sandbox.is_some() {
            return true;
        }
        match self.make_sandbox().await {
            Ok(sandbox) => {
                self.sandbox = Some(sandbox);
                self.sandbox_retry = None;
                true
            }
            Err((reason, message)) => {
                tracing::warn!(pod = self.identity.name, reason, message, "pod not set up; trying again");
                self.event(None, true, reason, message);
                let pause = self
                    .sandbox_retry
                    .map_or(SANDBOX_RETRY_FIRST, |(_, pause)| pause * 2)
                    .min(SANDBOX_RETRY_MAX);
                self.sandbox_retry = Some((Instant::now() + pause, pause));
                false
            }
        }
    }

    async fn make_sandbox(&self) -> Result<Sandbox, (&'static str, String)> {
        let shared = &self.shared;
        let uid = &self.identity.uid;
        let network = async {
            if spec::host_network(&self.pod) {
                let netns = format!("/proc/{}/ns/net", std::process::id());
                return Ok((PathBuf::from(netns), shared.config.node_ips.clone()));
            }
            let attachment = shared.network.attach(&self.identity).await;
            attachment.map(|attachment| (attachment.netns, attachment.addresses))
        };
        let (references, network) = tokio::join!(References::fetch(&shared.client, &self.pod), network);
        let (netns, addresses) = network.map_err(|error| ("FailedCreatePodSandBox", error.to_string()))?;
        let references = references.map_err(|error| ("FailedMount", error.to_string()))?;
        shared.cgroups.create(uid).map_err(|error| ("FailedCreatePodSandBox", error.to_string()))?;
        let directory = shared.pod_directory(uid);
        let facts = PodFacts { pod_ips: addresses.clone(), host_ips: shared.config.node_ips.clone() };
        let (pod, dns, ips) = (self.pod.clone(), shared.dns.clone(), addresses.clone());
        let files = tokio::task::spawn_blocking(move || {
            pod_files::write(&pod, &ips, &dns, &directory)?;
            let volumes = volumes::prepare(&pod, &references, &facts, &directory.join("volumes"))?;
            Ok::<_, Error>((volumes, references))
        });
        let (volumes, references) = files
            .await
            .expect("preparing volumes does not panic")
            .map_err(|error| ("FailedMount", error.to_string()))?;
        Ok(Sandbox { addresses, netns, volumes, references })
    }

    /// Starts the next attempt of a container, or records why that failed.
    pub(super) async fn start_container(&mut self, index: usize) {
        let image = match self.resolve_image(index).await {
            Ok(image) => image,
            Err(error) => return self.start_failed(index, error),
        };
        let record = &mut self.records[index];
        record.image = Some(image.name.clone());
        record.image_id = image.digest.clone();
        record.stop_signal =
            Some(image.config.config.stop_signal.clone()).filter(|signal| !signal.is_empty());
        let attempt = record.next_attempt;
        let name = record.container.name.clone();
        let id = container_id(&self.identity.uid, &name, attempt);
        let (process, mounts) = match self.create_container(index, &id, attempt, &image).await {
            Ok(made) => made,
            Err(error) => {
                self.forget(&id).await;
                return self.start_failed(index, error);
            }
        };
        self.event(Some(index), false, "Created", format!("Created container: {name}"));
        self.replace_attempt(index, attempt).await;
        match self.run_container(&id, mounts, index, attempt).await {
            Ok(()) => {
                let started_at = Timestamp::now();
                self.records[index].state = State::Running { id: id.clone(), started_at };
                self.event(Some(index), false, "Started", format!("Started container {name}"));
                self.watch_container(index, &id, process);
                self.run_post_start(index, &id);
            }
            Err(error) => {
                // Users know the container by its name.
                let message = error.to_string().replace(&id, &name);
                self.event(Some(index), true, "Failed", format!("Error: {message}"));
                self.not_started(index, id, message).await;
            }
        }
    }

    async fn resolve_image(&self, index: usize) -> Result<Arc<Image>, StartError> {
        let container = &self.records[index].container;
        let wanted = container.image.as_deref().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match self.shared.images.resolve(wanted, policy).await {
            Ok(image) => {
                let message = format!("Container image {wanted:?} already present on machine");
                self.event(Some(index), false, "Pulled", message);
                Ok(image)
            }
            Err(error) => {
                let again = matches!(&self.records[index].state, State::Waiting { reason, .. }
                    if matches!(*reason, "ErrImagePull" | "ImagePullBackOff"));
                let backing_off =
                    again && matches!(error, ImageError::Missing { .. } | ImageError::Failed(_));
                let reason = if backing_off { "ImagePullBackOff" } else { error.reason() };
                Err(StartError { reason, message: error.to_string() })
            }
        }
    }

    /// Records the container with its root file system and specification. Returns its OCI process and its mounts.
    async fn create_container(
        &self,
        index: usize,
        id: &str,
        attempt: u32,
        image: &Image,
    ) -> Result<(Value, Vec<Mount>), StartError> {
        let shared = &self.shared;
        let rootfs = shared.containerd.prepare_rootfs(id, &image.chain_id).await;
        let rootfs = rootfs.map_err(|error| StartError::new("CreateContainerError", &error))?;
        let spec = self
            .specification(index, id, image, &rootfs)
            .map_err(|error| StartError::new("CreateContainerConfigError", &error))?;
        let process = spec["process"].clone();
        let container = NewContainer {
            id: id.to_owned(),
            image: image.name.clone(),
            labels: labels::new(&self.identity, &self.records[index].container.name, attempt),
            spec,
        };
        shared
            .containerd
            .create_container(container)
            .await
            .map_err(|error| StartError::new("CreateContainerError", &error))?;
        Ok((process, rootfs))
    }

    fn specification(&self, index: usize, id: &str, image: &Image, rootfs: &[Mount]) -> Result<Value, Error> {
        let shared = &self.shared;
        let container = &self.records[index].container;
        let sandbox = self.sandbox.as_ref().expect("a container is started only in a sandbox");
        let defaults = &image.config.config;
        let facts = PodFacts { pod_ips: sandbox.addresses.clone(), host_ips: shared.config.node_ips.clone() };
        let image_env = defaults.env.clone().unwrap_or_default();
        let variables = env::environment(&self.pod, container, &image_env, &sandbox.references, &facts)?;
        let expanded = Container {
            command: expand_all(container.command.as_deref(), &variables),
            args: expand_all(container.args.as_deref(), &variables),
            ..container.clone()
        };
        let args = spec::arguments(&expanded, defaults);
        if args.is_empty() {
            let field = format!("container {}: command", container.name);
            return Err(Error::unsupported(field, "the image has no entrypoint: give a command"));
        }
        let user =
            user::resolve(&self.pod, container, &defaults.user, |name| user::read_from_mounts(rootfs, name))?;
        let directory = shared.pod_directory(&self.identity.uid);
        let mut mounts = pod_files::mounts(&directory);
        mounts.push(self.termination_mount(container, &directory, id)?);
        let own = sandbox.volumes.mounts(container, |text| variables.expand(text))?;
        mounts.retain(|mount| own.iter().all(|own| own.destination != mount.destination));
        mounts.extend(own);
        let hostname = pod_files::hostname(&self.pod);
        Ok(spec::build(&SpecInput {
            pod: &self.pod,
            container,
            image: defaults,
            user: &user,
            env: variables.into_list(),
            args,
            mounts,
            hostname: &hostname,
            netns: &sandbox.netns,
            cgroups_path: shared.cgroups.container_path(&self.identity.uid, id),
            pids_limit: shared.config.pids_limit,
        }))
    }

    fn termination_mount(
        &self,
        container: &Container,
        directory: &Path,
        id: &str,
    ) -> Result<BindMount, Error> {
        use std::os::unix::fs::PermissionsExt;

        let file = pod_files::termination_log(directory, id);
        std::fs::write(&file, "").map_err(Error::file("create", &file))?;
        // Whatever user the container runs as may write it.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666))
            .map_err(Error::file("change the mode of", &file))?;
        Ok(BindMount {
            source: file.to_string_lossy().into_owned(),
            destination: container
                .termination_message_path
                .clone()
                .unwrap_or_else(|| "/dev/termination-log".to_owned()),
            read_only: false,
            propagation: "rprivate",
        })
    }

    /// The attempt now counts; the one before the last is not needed any more.
    async fn replace_attempt(&mut self, index: usize, attempt: u32) {
        let record = &mut self.records[index];
        if let State::Exited(end) = &record.state {
            record.last = Some(end.clone());
        }
        record.next_attempt = attempt + 1;
        record.not_before = None;
        record.stopping = false;
        let name = record.container.name.clone();
        if let Some(old) = attempt.checked_sub(1) {
            self.forget(&container_id(&self.identity.uid, &name, old)).await;
        }
        if let Some(older) = attempt.checked_sub(2) {
            let file = logs::file(&self.shared.config.log_dir, &self.identity, &name, older);
            // Older attempts may have left nothing.
            let _absent = std::fs::remove_file(file);
        }
    }

    async fn forget(&self, id: &str) {
        if let Err(error) = self.shared.containerd.delete_container(id).await {
            tracing::warn!(%error, "old container not removed");
        }
    }

    async fn run_container(
        &self,
        id: &str,
        rootfs: Vec<Mount>,
        index: usize,
        attempt: u32,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let log =
            logs::file(&shared.config.log_dir, &self.identity, &self.records[index].container.name, attempt);
        let directory = log.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        let driver = &shared.config.log_driver;
        let output = log_uri(&driver.executable, &driver.argument, &log);
        let pid = shared.containerd.create_task(id, rootfs, &output).await?;
        shared.cgroups.join(&self.identity.uid, pid)?;
        shared.containerd.start_task(id).await
    }

    /// A container that was made and did not start counts as an attempt that ended.
    async fn not_started(&mut self, index: usize, id: String, message: String) {
        let now = Timestamp::now();
        let end = Termination {
            id: id.clone(),
            exit_code: EXIT_CODE_NOT_STARTED,
            reason: "StartError".to_owned(),
            message,
            started_at: Some(now),
            finished_at: now,
        };
        if let Err(error) = self.shared.containerd.kill_and_delete_task(&id).await {
            tracing::warn!(%error, "task that did not start not removed");
        }
        if let Err(error) = self.shared.containerd.label_container(&id, labels::end(&end)).await {
            tracing::warn!(%error, "end of container not recorded");
        }
        self.records[index].exited(end, Instant::now());
    }

    fn start_failed(&mut self, index: usize, error: StartError) {
        tracing::info!(
            pod = self.identity.name,
            reason = error.reason,
            message = error.message,
            "container not started"
        );
        self.event(Some(index), true, "Failed", format!("Error: {}: {}", error.reason, error.message));
        self.records[index].start_failed(error.reason, error.message, Instant::now());
    }

    /// Watches for the container's end and starts its probes.
    pub(super) fn watch_container(&mut self, index: usize, id: &str, process: Value) {
        let (containerd, signals, own_id) =
            (self.shared.containerd.clone(), self.signals.clone(), id.to_owned());
        self.tasks.spawn(async move {
            let exit = loop {
                match containerd.wait(&own_id, "").await {
                    Ok(exit) => break exit,
                    // containerd is away; the container may well run on.
                    Err(error) => tracing::debug!(%error, "waiting again"),
                }
                if let Ok(None) = containerd.task_state(&own_id).await {
                    break None;
                }
                tokio::time::sleep(WAIT_RETRY).await;
            };
            // A closed channel is a worker that has ended.
            let _worker_gone = signals.send(Signal::Exited { id: own_id, exit }).await;
        });
        let prober = Prober {
            containerd: self.shared.containerd.clone(),
            container_id: id.to_owned(),
            process,
            address: self.sandbox.as_ref().and_then(|sandbox| sandbox.addresses.first().copied()),
            container: self.records[index].container.clone(),
            run_dir: self.shared.config.run_dir.clone(),
        };
        self.probers.insert(id.to_owned(), Arc::new(prober));
        self.probes.insert(id.to_owned(), Vec::new());
        self.start_probes(index);
    }

    /// Starts the startup probe or, when that is passed, the others.
    pub(super) fn start_probes(&mut self, index: usize) {
        let record = &self.records[index];
        let Some(id) = record.running_id().map(ToOwned::to_owned) else { return };
        let Some(prober) = self.probers.get(&id).cloned() else { return };
        let container = &record.container;
        let wanted = match &container.startup_probe {
            Some(startup) if !record.startup_passed => vec![(ProbeKind::Startup, startup.clone())],
            _ => [
                (ProbeKind::Readiness, container.readiness_probe.clone()),
                (ProbeKind::Liveness, container.liveness_probe.clone()),
            ]
            .into_iter()
            .filter_map(|(kind, probe)| Some((kind, probe?)))
            .collect(),
        };
        for (kind, probe) in wanted {
            let (signals, id, prober) = (self.signals.clone(), id.clone(), prober.clone());
            let own_id = id.clone();
            let task = self.tasks.spawn(probe::run(kind, probe, prober, move |outcome| {
                let (signals, signal) =
                    (signals.clone(), Signal::Probed { id: own_id.clone(), kind, outcome });
                async move {
                    // A closed channel is a worker that has ended.
                    let _worker_gone = signals.send(signal).await;
                }
            }));
            self.probes.entry(id).or_default().push(task);
        }
    }

    fn run_post_start(&mut self, index: usize, id: &str) {
        let lifecycle = self.records[index].container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else { return };
        let Some(prober) = self.probers.get(id).cloned() else { return };
        let (action, signals, id) = (Action::of_hook(hook), self.signals.clone(), id.to_owned());
        self.tasks.spawn(async move {
            if let Err(message) = prober.check(&action, HOOK_TIMEOUT).await {
                // A closed channel is a worker that has ended.
                let _worker_gone = signals.send(Signal::HookFailed { id, message }).await;
            }
        });
    }
}

fn expand_all(list: Option<&[String]>, variables: &env::Variables) -> Option<Vec<String>> {
    list.map(|list| list.iter().map(|text| variables.expand(text)).collect())
}

/// `binary://<executable>?<argument>=<log file>`: the shim turns the query into arguments.
fn log_uri(executable: &Path, argument: &str, log: &Path) -> String {
    let escape = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        });
        bytes.collect::<String>()
    };
    let (executable, log) = (executable.to_string_lossy(), log.to_string_lossy());
    format!("binary://{}?{}={}", escape(&executable), escape(argument), escape(&log))
}
