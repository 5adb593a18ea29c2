//! What the kubelet's HTTPS API asks of the agent: pods, containers, logs, streams, network namespaces.

use super::context::Agent;
use super::cri::Result;
use super::logs;
use super::observed::Container;
use super::pods::view::View;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What of a container's streams is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Why a container cannot be used; `Display` is for the user, in upstream's words.
#[derive(Clone, Debug, PartialEq)]
pub enum LookupError {
    NoPod {
        namespace: String,
        name: String,
    },
    NoContainer {
        pod: String,
        container: String,
    },
    /// It exists, but not (yet, or any more) as asked.
    NotThere {
        pod: String,
        container: String,
        why: String,
    },
}

impl std::fmt::Display for LookupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LookupError::NoPod { namespace, name } => {
                write!(f, "pod \"{name}\" not found in namespace \"{namespace}\"")
            }
            LookupError::NoContainer { pod, container } => {
                write!(f, "container {container} is not valid for pod {pod}")
            }
            LookupError::NotThere { pod, container, why } => {
                write!(f, "container \"{container}\" in pod \"{pod}\" {why}")
            }
        }
    }
}

impl std::error::Error for LookupError {}

impl Agent {
    /// Every pod with the status that its task last computed (fresher than the API's).
    pub fn pods(&self) -> Vec<Pod> {
        let with_status = |view: Arc<View>| Pod { status: Some(view.status.clone()), ..(*view.pod).clone() };
        self.views.all().into_iter().map(with_status).collect()
    }

    /// A pod by name; `uid` Some: this very one.
    pub fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> std::result::Result<Arc<View>, LookupError> {
        let found = match uid {
            Some(uid) => self.views.get(uid),
            None => self.views.find(namespace, name),
        };
        found.ok_or_else(|| LookupError::NoPod { namespace: namespace.into(), name: name.into() })
    }

    /// The running container of a name, for exec and attach.
    pub fn running<'a>(&self, view: &'a View, container: &str) -> std::result::Result<&'a Container, LookupError> {
        let pod = view.pod.metadata.name.clone().unwrap_or_default();
        match view.container(container, false) {
            Some(found) if found.is_running() => Ok(found),
            Some(_) => Err(not_there(pod, container, "is not running")),
            None if declares(&view.pod, container) => Err(not_there(pod, container, "is waiting to start")),
            None => Err(LookupError::NoContainer { pod, container: container.into() }),
        }
    }

    /// Log files of a container, oldest first, the one that is written to last. `previous`: of the run before.
    pub fn log_files(
        &self,
        view: &View,
        container: &str,
        previous: bool,
    ) -> std::result::Result<Vec<PathBuf>, LookupError> {
        let pod = view.pod.metadata.name.clone().unwrap_or_default();
        // A container that has crashed and waits has its last run as the current one and as the previous one.
        let waits = view.container(container, false).is_some_and(|c| c.is_exited()) && is_waiting(view, container);
        let found = view.container(container, previous && !waits);
        match found {
            Some(found) => {
                let current = PathBuf::from(&found.log_path);
                let mut files = logs::rotated(&current).unwrap_or_default();
                files.push(current);
                Ok(files)
            }
            None if previous && declares(&view.pod, container) => {
                let why = format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
                Err(LookupError::NotThere { pod, container: container.into(), why })
            }
            None if declares(&view.pod, container) => {
                let reason = waiting_reason(view, container).unwrap_or_else(|| "ContainerCreating".into());
                Err(not_there(pod, container, &format!("is waiting to start: {reason}")))
            }
            None => Err(LookupError::NoContainer { pod, container: container.into() }),
        }
    }

    /// URL on the runtime's streaming server for one exec.
    pub async fn exec_url(&self, id: &str, cmd: Vec<String>, streams: Streams) -> Result<String> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        self.cri.exec_url(cri::ExecRequest { container_id: id.into(), cmd, tty, stdin, stdout, stderr }).await
    }

    /// URL on the runtime's streaming server for one attach.
    pub async fn attach_url(&self, id: &str, streams: Streams) -> Result<String> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        self.cri.attach_url(cri::AttachRequest { container_id: id.into(), stdin, tty, stdout, stderr }).await
    }

    /// URL on the runtime's streaming server for forwarding ports.
    pub async fn port_forward_url(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        self.cri.port_forward_url(sandbox, ports).await
    }

    /// The pod's network namespace as a file to enter; None: no sandbox runs.
    pub async fn network_namespace(&self, view: &View) -> Option<PathBuf> {
        if view.pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true)) {
            return Some(PathBuf::from("/proc/self/ns/net"));
        }
        let status = self.cri.sandbox_status(view.sandbox.as_deref()?, true).await.ok()?;
        let info: serde_json::Value = serde_json::from_str(status.info.get("info")?).ok()?;
        let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
        let network = namespaces.iter().find(|n| n["type"] == "network")?;
        let named = network["path"].as_str().filter(|p| !p.is_empty()).map(PathBuf::from);
        named.or_else(|| Some(Path::new("/proc").join(info["pid"].as_i64()?.to_string()).join("ns/net")))
    }
}

fn not_there(pod: String, container: &str, why: &str) -> LookupError {
    LookupError::NotThere { pod, container: container.to_owned(), why: why.to_owned() }
}

fn declares(pod: &Pod, container: &str) -> bool {
    super::pods::plan::containers(pod).iter().any(|(_, c)| c.name == container)
}

fn waiting_reason(view: &View, container: &str) -> Option<String> {
    let s = &view.status;
    let lists = [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses];
    let status = lists.into_iter().flatten().flatten().find(|c| c.name == container)?;
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn is_waiting(view: &View, container: &str) -> bool {
    waiting_reason(view, container).is_some()
}
