//! Tasks: the processes of containers.
//!
//! How a process ended is learnt by `Wait`, one open call per process: unlike the event stream it cannot miss an exit
//! that came before the subscription, and it answers at once for a process that has ended already.

use containerd_client::{
    services::v1::{
        CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetRequest,
        KillRequest, StartRequest, WaitRequest, tasks_client::TasksClient,
    },
    tonic::{Code, transport::Channel},
    types::{Mount, v1::Status as ProcessStatus},
};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use prost_types::Any;

use super::{Containerd, ignore_not_found, optional};
use crate::Error;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exit {
    /// Exit code, or 128 + signal.
    pub(crate) code: i32,
    /// When.
    pub(crate) at: Timestamp,
}

/// What a task is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TaskState {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Ended, not yet deleted.
    Stopped(Exit),
}

impl Containerd {
    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Makes the container's first process, which waits for [`start_task`](Self::start_task). Returns its process id.
    pub(crate) async fn create_task(&self, id: &str, rootfs: Vec<Mount>, output: &str) -> Result<u32, Error> {
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdout: output.to_owned(),
            stderr: output.to_owned(),
            ..CreateTaskRequest::default()
        };
        let answer = self
            .tasks()
            .create(self.request(request))
            .await
            .map_err(Error::containerd("create the task of container", id))?;
        Ok(answer.into_inner().pid)
    }

    /// Lets the container's first process run.
    pub(crate) async fn start_task(&self, id: &str) -> Result<(), Error> {
        let request = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        self.tasks().start(self.request(request)).await.map_err(Error::containerd("start container", id))?;
        Ok(())
    }

    /// Waits for the end of the container's first process, or of one started by [`exec`](Self::exec).
    /// `None`: containerd does not know the process any more.
    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> Result<Option<Exit>, Error> {
        let request = WaitRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned() };
        let answer = optional(self.tasks().wait(self.request(request)).await)
            .map_err(Error::containerd("wait for container", id))?;
        Ok(answer.map(|answer| {
            let answer = answer.into_inner();
            exit(answer.exit_status, answer.exited_at.as_ref())
        }))
    }

    /// The task's state; `None` when it has none.
    pub(crate) async fn task_state(&self, id: &str) -> Result<Option<TaskState>, Error> {
        let request = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        let answer = optional(self.tasks().get(self.request(request)).await)
            .map_err(Error::containerd("get the task of container", id))?;
        let Some(process) = answer.and_then(|answer| answer.into_inner().process) else {
            return Ok(None);
        };
        Ok(Some(match process.status() {
            ProcessStatus::Created => TaskState::Created,
            ProcessStatus::Stopped => {
                TaskState::Stopped(exit(process.exit_status, process.exited_at.as_ref()))
            }
            _ => TaskState::Running,
        }))
    }

    /// Sends a signal to the container's first process, or to all of its processes. Idempotent.
    pub(crate) async fn kill(&self, id: &str, signal: Signal, all: bool) -> Result<(), Error> {
        let request =
            KillRequest { container_id: id.to_owned(), exec_id: String::new(), signal: signal as u32, all };
        match self.tasks().kill(self.request(request)).await {
            Err(status) if !matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => {
                Err(Error::containerd("signal container", id)(status))
            }
            _ => Ok(()),
        }
    }

    /// Deletes the ended task, which ends its shim. Idempotent.
    pub(crate) async fn delete_task(&self, id: &str) -> Result<(), Error> {
        let request = DeleteTaskRequest { container_id: id.to_owned() };
        ignore_not_found(self.tasks().delete(self.request(request)).await)
            .map_err(Error::containerd("delete the task of container", id))
    }

    /// Ends the task by SIGKILL, waits for its end, and deletes it. Idempotent.
    pub(crate) async fn kill_and_delete_task(&self, id: &str) -> Result<(), Error> {
        match self.task_state(id).await? {
            None => return Ok(()),
            Some(TaskState::Running) => {
                self.kill(id, Signal::SIGKILL, true).await?;
                self.wait(id, "").await?;
            }
            // Deleting ends a process that was never started.
            Some(TaskState::Created) => {
                self.kill(id, Signal::SIGKILL, true).await?;
            }
            Some(TaskState::Stopped(_)) => {}
        }
        self.delete_task(id).await
    }

    /// Starts another process in the container. `process` is an OCI process.
    pub(crate) async fn exec(
        &self,
        id: &str,
        exec_id: &str,
        process: &serde_json::Value,
        output: &str,
    ) -> Result<(), Error> {
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: process.to_string().into_bytes(),
        };
        let request = ExecProcessRequest {
            container_id: id.to_owned(),
            stdout: output.to_owned(),
            stderr: output.to_owned(),
            spec: Some(spec),
            exec_id: exec_id.to_owned(),
            ..ExecProcessRequest::default()
        };
        let mut tasks = self.tasks();
        tasks.exec(self.request(request)).await.map_err(Error::containerd("run a command in", id))?;
        let request = StartRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned() };
        tasks.start(self.request(request)).await.map_err(Error::containerd("start a command in", id))?;
        Ok(())
    }

    /// Ends and forgets a process started by [`exec`](Self::exec). Idempotent.
    pub(crate) async fn delete_exec(&self, id: &str, exec_id: &str) -> Result<(), Error> {
        let mut tasks = self.tasks();
        let request = KillRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            signal: Signal::SIGKILL as u32,
            all: false,
        };
        if tasks.kill(self.request(request)).await.is_ok() {
            self.wait(id, exec_id).await?;
        }
        let request = DeleteProcessRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned() };
        ignore_not_found(tasks.delete_process(self.request(request)).await)
            .map_err(Error::containerd("delete a command of", id))
    }
}

fn exit(status: u32, at: Option<&prost_types::Timestamp>) -> Exit {
    let at = at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    Exit { code: i32::try_from(status).unwrap_or(255), at: at.unwrap_or_else(Timestamp::now) }
}
