//! What the runtime has of one pod: sandboxes and containers, newest first.

use super::cri::{Cri, Result};
use super::labels;
use jiff::Timestamp;
use k8s_cri::v1 as cri;
use std::collections::HashMap;

/// One sandbox.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created: i64,
    /// Empty for pods on the host's network.
    pub ips: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Made, not started.
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container, running or not.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub sandbox: String,
    /// How often it was restarted before this one.
    pub attempt: u32,
    pub state: State,
    /// Nanoseconds since 1970; 0: not yet.
    pub created: i64,
    pub started: i64,
    pub finished: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_ref: String,
    pub hash: String,
    pub log_path: String,
    pub mounts: Vec<(String, String)>,
    pub annotations: HashMap<String, String>,
    pub user: Option<cri::LinuxContainerUser>,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    pub fn is_exited(&self) -> bool {
        self.state == State::Exited
    }

    pub fn started_at(&self) -> Option<Timestamp> {
        timestamp(self.started)
    }

    pub fn finished_at(&self) -> Option<Timestamp> {
        timestamp(self.finished)
    }
}

/// Nanoseconds since 1970 as the API writes times; 0: none.
pub fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    let time = || Timestamp::from_second(nanoseconds / 1_000_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
    (nanoseconds > 0).then(|| crate::time::of_machine(time()))
}

/// All of one pod.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

/// Answers that cannot change any more, by id: exited containers, addresses of sandboxes.
#[derive(Default)]
pub struct Settled {
    exited: HashMap<String, Container>,
    addresses: HashMap<String, Vec<String>>,
}

impl Observed {
    /// Ask the runtime about one pod.
    pub async fn of(cri: &Cri, uid: &str, settled: &mut Settled) -> Result<Self> {
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let (sandboxes, containers) = tokio::try_join!(cri.sandboxes(selector.clone()), cri.containers(selector))?;
        let mut observed = Observed::default();
        for sandbox in sandboxes {
            observed.sandboxes.push(settled.sandbox(cri, sandbox).await?);
        }
        for container in &containers {
            if let Some(container) = settled.container(cri, container).await? {
                observed.containers.push(container);
            }
        }
        settled.exited.retain(|id, _| containers.iter().any(|c| c.id == *id));
        // Attempts before times: a machine without a battery may have made the latest in 1970.
        observed.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created)));
        observed.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created)));
        Ok(observed)
    }

    /// The sandbox that counts.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The latest container of a name, in whatever sandbox.
    pub fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The one before a container.
    pub fn before(&self, container: &Container) -> Option<&Container> {
        self.containers.iter().filter(|c| c.name == container.name).skip_while(|c| c.id != container.id).nth(1)
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.is_running())
    }
}

impl Settled {
    async fn sandbox(&mut self, cri: &Cri, sandbox: cri::PodSandbox) -> Result<Sandbox> {
        let ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
        if ready && !self.addresses.contains_key(&sandbox.id) {
            match cri.sandbox_status(&sandbox.id, false).await {
                Ok(answer) => {
                    let network = answer.status.and_then(|s| s.network).unwrap_or_default();
                    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
                    let ips = all.filter(|ip| !ip.is_empty()).collect();
                    self.addresses.insert(sandbox.id.clone(), ips);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let ips = self.addresses.get(&sandbox.id).cloned().unwrap_or_default();
        let attempt = sandbox.metadata.unwrap_or_default().attempt;
        Ok(Sandbox { id: sandbox.id, attempt, ready, created: sandbox.created_at, ips })
    }

    /// None: it went away between the list and the question.
    async fn container(&mut self, cri: &Cri, listed: &cri::Container) -> Result<Option<Container>> {
        if let Some(known) = self.exited.get(&listed.id) {
            return Ok(Some(known.clone()));
        }
        let status = match cri.container_status(&listed.id).await {
            Ok(status) => status,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let container = convert(listed, status);
        if container.is_exited() {
            self.exited.insert(container.id.clone(), container.clone());
        }
        Ok(Some(container))
    }
}

fn convert(listed: &cri::Container, status: cri::ContainerStatus) -> Container {
    let metadata = status.metadata.unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned();
    Container {
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: annotation(labels::RESTART_COUNT).and_then(|n| n.parse().ok()).unwrap_or(metadata.attempt),
        hash: annotation(labels::HASH).unwrap_or_default(),
        id: status.id,
        sandbox: listed.pod_sandbox_id.clone(),
        state: match cri::ContainerState::try_from(status.state) {
            Ok(cri::ContainerState::ContainerCreated) => State::Created,
            Ok(cri::ContainerState::ContainerRunning) => State::Running,
            Ok(cri::ContainerState::ContainerExited) => State::Exited,
            _ => State::Unknown,
        },
        created: status.created_at,
        started: status.started_at,
        finished: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.map(|i| i.image).unwrap_or_default(),
        image_ref: status.image_ref,
        log_path: status.log_path,
        mounts: status.mounts.into_iter().map(|m| (m.container_path, m.host_path)).collect(),
        annotations: status.annotations,
        user: status.user.and_then(|u| u.linux),
    }
}
