//! What every part of the agent shares.

use super::Config;
use super::cgroups::Layout;
use super::cri::Cri;
use super::images::store::Store;
use super::kept::Kept;
use super::labels;
use super::machine::Machine;
use super::observed_state::Wakes;
use super::paths::Paths;
use super::pods::view::Views;
use super::sources::Sources;
use crate::cache::{Cache, Caches};
use crate::events::{self, Recorder};
use crate::task::Group;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Images pulled at the same time by all pods; more wait. Slow links finish sooner one by one.
const PULLS_AT_ONCE: usize = 3;
/// How long a container's start waits for the first list of Services.
const SERVICES_WAIT: Duration = Duration::from_secs(10);

/// The agent. One in a process (tests: several).
pub struct Agent {
    pub config: Config,
    pub paths: Paths,
    pub client: kube::Client,
    pub cri: Cri,
    /// None: a runtime that is not containerd.
    pub store: Option<Store>,
    pub layout: Layout,
    pub machine: Machine,
    pub recorder: Recorder,
    pub sources: Arc<Sources>,
    /// For a start without the server.
    pub kept: Kept,
    /// Value of our label on everything in the runtime.
    pub instance: String,
    /// `containerd`: the scheme of container ids.
    pub runtime_name: String,
    pub views: Views,
    pub wakes: Wakes,
    pub pulls: Semaphore,
    /// The machine goes down.
    pub stopping: watch::Sender<bool>,
    services: Cache<Service>,
}

impl Agent {
    #[expect(clippy::too_many_arguments, reason = "the one place that puts the parts together")]
    pub fn new(
        config: Config,
        client: kube::Client,
        caches: &Arc<Caches>,
        cri: Cri,
        store: Option<Store>,
        layout: Layout,
        runtime_name: String,
        group: &Group,
    ) -> Arc<Self> {
        let machine = Machine::detect(&config.dir, config.max_pods);
        let recorder = Recorder::new(client.clone(), "kubelet", &config.node_name, group);
        Arc::new(Agent {
            paths: Paths::new(&config),
            instance: labels::instance(&config.cgroup_root),
            sources: Arc::new(Sources::new(client.clone(), caches.clone(), group.clone())),
            kept: Kept::new(caches.vault(), group),
            services: caches.of::<Service>(),
            views: Views::default(),
            wakes: Wakes::default(),
            pulls: Semaphore::new(PULLS_AT_ONCE),
            stopping: watch::Sender::new(false),
            config,
            client,
            cri,
            store,
            layout,
            machine,
            recorder,
            runtime_name,
        })
    }

    /// All Services; what is known, when the server does not answer in time.
    pub async fn services(&self) -> Vec<Arc<Service>> {
        let _ = tokio::time::timeout(SERVICES_WAIT, self.services.synced()).await;
        self.services.list()
    }

    /// An event of a pod, or of one of its containers.
    pub fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: events::Type,
        reason: &str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        tracing::debug!(pod = %pod_name(pod), container, reason, message, "event");
        self.recorder.event(&reference(pod, container), kind, reason, message);
    }

    /// Node memory for shares of it.
    pub fn memory_bytes(&self) -> i64 {
        self.machine.memory_bytes as i64
    }
}

/// `namespace/name` for logs.
pub fn pod_name(pod: &Pod) -> String {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub fn pod_full_name(pod: &Pod) -> String {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let m = &pod.metadata;
    format!("{}_{}({})", text(&m.name), text(&m.namespace), text(&m.uid))
}

/// What events are about.
pub fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let spec = pod.spec.as_ref();
    let list = |name: &str| {
        let init = spec.is_some_and(|s| s.init_containers.iter().flatten().any(|c| c.name == name));
        let ephemeral = spec.is_some_and(|s| s.ephemeral_containers.iter().flatten().any(|c| c.name == name));
        match (init, ephemeral) {
            (true, _) => "initContainers",
            (_, true) => "ephemeralContainers",
            _ => "containers",
        }
    };
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|name| format!("spec.{}{{{name}}}", list(name))),
    }
}
