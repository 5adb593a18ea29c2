//! The agent: kubelet over CRI (DESIGN D6). Sees the cluster through `client` and `cache` only.

pub mod api;
pub mod cgroups;
pub mod config_toml;
pub mod containerd;
pub mod context;
pub mod cri;
pub mod images;
pub mod kept;
pub mod labels;
pub mod logs;
pub mod machine;
pub mod node;
pub mod observed;
pub mod observed_state;
pub mod paths;
pub mod pause;
pub mod pods;
pub mod qos;
pub mod resources;
pub mod runtime;
pub mod shutdown;
pub mod slices;
pub mod sources;
pub mod stats;
mod trust_bundles;
pub mod tunnel;
pub mod volumes;

use crate::cache::Caches;
use crate::client::Line;
use crate::pki::LiveCertificate;
use crate::task::Group;
use anyhow::Context as _;
use containerd::Supervisor;
use context::Agent;
use cri::Cri;
use images::import::Importer;
use images::store::{self, Store};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Everything the agent needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Where others reach this node from outside, if that differs.
    pub node_external_ip: Option<IpAddr>,
    pub node_labels: Vec<(String, String)>,
    /// `<data-dir>/agent`
    pub dir: PathBuf,
    /// `/run/kedge` (or an instance's own)
    pub run_dir: PathBuf,
    /// Pod volumes and plugins: `<data-dir>/agent/kubelet`.
    pub kubelet_dir: PathBuf,
    /// `/var/log/pods`, `/var/log/containers`
    pub log_dir: PathBuf,
    /// Parent of all pod cgroups: `/kubepods` (an instance's own in tests).
    pub cgroup_root: String,
    /// A foreign CRI socket; None: our own containerd.
    pub container_runtime_endpoint: Option<String>,
    /// The resolver file pods inherit.
    pub resolv_conf: Option<PathBuf>,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Port of the kubelet's HTTPS API (10250).
    pub kubelet_port: u16,
    /// Certificate of the kubelet API; whoever renews it swaps it here.
    pub serving: Arc<LiveCertificate>,
    /// PEM of the CA that signs the clients of the kubelet API.
    pub client_ca: String,
    pub max_pods: u32,
    /// Somebody else's CNI plugin connects pods: our containerd looks where plugins put themselves.
    pub foreign_cni: bool,
    /// When the machine stops: the time that all pods have to end, and the part of it kept for critical ones.
    pub shutdown_grace: Duration,
    pub shutdown_grace_critical: Duration,
}

impl Config {
    /// A configuration with everything below one directory, for tests.
    #[doc(hidden)]
    pub fn for_tests(directory: &std::path::Path) -> Self {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        Config {
            node_name: "node".into(),
            node_ip: IpAddr::from([127, 0, 0, 1]),
            node_external_ip: None,
            node_labels: Vec::new(),
            dir: directory.join("agent"),
            run_dir: directory.join("run"),
            kubelet_dir: directory.join("agent/kubelet"),
            log_dir: directory.join("log"),
            cgroup_root: format!("/{name}"),
            container_runtime_endpoint: None,
            resolv_conf: None,
            cluster_dns: IpAddr::from([10, 43, 0, 10]),
            cluster_domain: "cluster.local".into(),
            kubelet_port: 10250,
            serving: Arc::default(),
            client_ca: String::new(),
            max_pods: 110,
            foreign_cni: false,
            shutdown_grace: Duration::from_secs(30),
            shutdown_grace_critical: Duration::from_secs(10),
        }
    }
}

/// Tries to import the pause image while containerd settles.
const PAUSE_RETRY: Duration = Duration::from_millis(200);

/// Start the agent; its tasks end with the group. Pods go on without it. `line`: to a server in another process, which
/// gets its way back to this node on it. What this gives ends the pods, when the machine stops.
///
/// Errors: what the machine lacks (containerd, runc, writable directories), found before anything is started.
pub async fn run(
    config: Config,
    client: kube::Client,
    line: Option<Line>,
    caches: Arc<Caches>,
    group: Group,
) -> anyhow::Result<shutdown::Pods> {
    shutdown::forget(&config.run_dir);
    let agent = start(config, client, &caches, &group)?;
    let cache = caches.selected::<Pod>(&format!("spec.nodeName={}", agent.config.node_name));
    api::start(agent.clone(), &group).await?;
    if let Some(line) = line {
        group.spawn("tunnel", tunnel::run(line, agent.clone(), group.child()));
    }
    group.spawn("kept", kept::forget(agent.clone(), cache.clone()));
    let tasks = group.child();
    tasks.spawn("pods", pods::run(agent.clone(), cache.clone(), tasks.clone()));
    Ok(shutdown::Pods { agent, cache, tasks })
}

/// Everything but the pods.
fn start(config: Config, client: kube::Client, caches: &Arc<Caches>, group: &Group) -> anyhow::Result<Arc<Agent>> {
    for dir in [&config.dir, &config.run_dir, &config.kubelet_dir, &config.log_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let layout = cgroups::Layout::detect(&config.cgroup_root);
    let (cri, store, up) = match &config.container_runtime_endpoint {
        Some(endpoint) => {
            let socket = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
            let cri = Cri::new(&socket)?;
            // Whether it is containerd shows when it answers; its own API is asked only then.
            let up = watch::Sender::new(false);
            let is_up = up.subscribe();
            group.spawn("foreign runtime", watch_foreign(cri.clone(), up));
            (cri, None, is_up)
        }
        None => {
            let cri = Cri::new(&containerd::socket(&config))?;
            let supervisor = Supervisor::prepare(&config, &layout, cri.clone())?;
            let up = supervisor.up();
            let store = Store::new(cri.channel());
            group.spawn("containerd", supervisor.run(group.clone()));
            (cri, Some(store), up)
        }
    };
    let agent = Agent::new(config, client, caches, cri, store.clone(), layout, "containerd".into(), group);
    let (ready, runtime_ready) = watch::channel(false);
    group.spawn("runtime", prepare_runtime(agent.clone(), up, ready, group.clone()));
    let own = caches.selected::<Node>(&format!("metadata.name={}", agent.config.node_name));
    group.spawn("node", node::run(agent.clone(), own, runtime_ready, group.child()));
    group.spawn("observed state", observed_state::run(agent.clone(), group.child()));
    group.spawn("logs", logs::run(agent.clone()));
    group.spawn("image collection", images::gc::run(agent.clone()));
    Ok(agent)
}

/// Each time the runtime comes up: the pause image, then everybody may look. The first time, importing begins.
async fn prepare_runtime(agent: Arc<Agent>, mut up: watch::Receiver<bool>, ready: watch::Sender<bool>, group: Group) {
    let mut importing = false;
    loop {
        if *up.borrow_and_update() {
            if let Some(store) = &agent.store {
                while let Err(error) = store::ensure_pause(store).await {
                    warn!("{error:#}");
                    tokio::time::sleep(PAUSE_RETRY).await;
                    if !*up.borrow() {
                        break;
                    }
                }
                if !std::mem::replace(&mut importing, true) {
                    match Importer::new(store.clone(), &agent.config.dir) {
                        Ok(importer) => group.spawn("image import", importer.run(group.clone())),
                        Err(error) => warn!("images are not imported: {error:#}"),
                    }
                }
            }
            ready.send_replace(true);
            agent.wakes.ring_all();
            agent.wakes.relist.notify_one();
        } else {
            ready.send_replace(false);
        }
        if up.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a runtime that is not ours answers.
async fn watch_foreign(cri: Cri, up: watch::Sender<bool>) {
    const ASK_EVERY: Duration = Duration::from_secs(5);
    loop {
        let answers = cri.version().await.is_ok();
        up.send_if_modified(|known| std::mem::replace(known, answers) != answers);
        tokio::time::sleep(ASK_EVERY).await;
    }
}
