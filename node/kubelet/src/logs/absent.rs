//! Why there is no log yet, in upstream's words (`pkg/kubelet/kubelet_pods.go`, `validateContainerLogStatus`).

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// What a container is in its pod, as far as it matters for what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It waits for nobody.
    First,
    /// It waits for the init containers.
    AfterInit,
}

/// The role of the container of this name; `None` when the pod has no such container.
pub(crate) fn role(pod: &Pod, container: &str) -> Option<Role> {
    let spec = pod.spec.as_ref()?;
    let mut init = spec.init_containers.iter().flatten();
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    if init.any(|one| one.name == container) || ephemeral.any(|one| one.name == container) {
        return Some(Role::First);
    }
    let waits = spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
    let is_app = spec.containers.iter().any(|one| one.name == container);
    is_app.then_some(if waits { Role::AfterInit } else { Role::First })
}

impl Role {
    /// What a container waits for that has never been started.
    pub(crate) fn waiting(self, pod: &Pod, container: &str) -> String {
        let reason = status(pod, container)
            .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref())
            .unwrap_or(match self {
                Self::First => "ContainerCreating",
                Self::AfterInit => "PodInitializing",
            });
        let what = match reason {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            reason => reason,
        };
        format!("container {container:?} in pod {:?} is waiting to start: {what}", name(pod))
    }
}

/// Whether the object says that a container has been started, now or before.
pub(crate) fn has_started(pod: &Pod, container: &str) -> bool {
    let Some(status) = status(pod, container) else { return false };
    let states = [&status.state, &status.last_state];
    states.into_iter().flatten().any(|state| state.running.is_some() || state.terminated.is_some())
}

/// That a container has not been started twice.
pub(crate) fn previous(pod: &Pod, container: &str) -> String {
    format!("previous terminated container {container:?} in pod {:?} not found", name(pod))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn status<'p>(pod: &'p Pod, container: &str) -> Option<&'p ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(init: &[&str], waiting: Option<&str>) -> Pod {
        let statuses = waiting.map(|reason| {
            json!([{ "name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                     "state": { "waiting": { "reason": reason } } }])
        });
        let init: Vec<Value> = init.iter().map(|name| json!({ "name": name })).collect();
        let pod = json!({
            "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c" }], "initContainers": init },
            "status": { "containerStatuses": statuses },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_container_that_was_not_started_says_what_it_waits_for() {
        let rows = [
            (&[][..], "c", None, "ContainerCreating"),
            (&["i"], "c", None, "PodInitializing"),
            (&["i"], "i", None, "ContainerCreating"),
            (&[], "c", Some("CreateContainerConfigError"), "CreateContainerConfigError"),
            (&[], "c", Some("ErrImagePull"), "image can't be pulled"),
            (&["i"], "c", Some("ImagePullBackOff"), "trying and failing to pull image"),
        ];
        for (init, container, reason, expected) in rows {
            let pod = pod(init, reason);
            let text = role(&pod, container).unwrap().waiting(&pod, container);
            let expected = format!("container {container:?} in pod \"p\" is waiting to start: {expected}");
            assert_eq!(text, expected);
        }
        assert_eq!(role(&pod(&["i"], None), "x"), None);
        let before = previous(&pod(&[], None), "c");
        assert_eq!(before, "previous terminated container \"c\" in pod \"p\" not found");
    }
    #[test]
    fn a_container_that_runs_or_has_run_has_been_started() {
        let rows = [
            (json!({}), false),
            (json!({ "state": { "waiting": { "reason": "ContainerCreating" } } }), false),
            (json!({ "state": { "running": {} } }), true),
            (json!({ "state": { "terminated": { "exitCode": 0 } } }), true),
            (
                json!({
                    "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                    "lastState": { "terminated": { "exitCode": 1 } },
                }),
                true,
            ),
        ];
        for (states, expected) in rows {
            let mut status =
                json!({ "name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "" });
            status.as_object_mut().unwrap().extend(states.as_object().unwrap().clone());
            let mut object = pod(&[], None);
            object.status.as_mut().unwrap().container_statuses =
                Some(vec![serde_json::from_value(status).unwrap()]);
            assert_eq!(has_started(&object, "c"), expected, "{states}");
        }
    }
}
