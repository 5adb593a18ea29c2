//! Controllers: one trait, one driver, one table; one file per controller (DESIGN D5). Level-triggered: a reconcile
//! gets a key, never an event.

mod apply;
mod bootstrap_tokens;
pub mod certificates;
mod conditions;
mod deployment;
pub mod driver;
mod endpoints;
mod gc;
mod hash;
mod kinds;
pub mod labels;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owners;
mod pod_control;
mod pod_gc;
mod pods;
mod queue;
mod replicas;
mod root_ca;
pub mod scheduler;
mod serviceaccount;
mod taint_eviction;
mod volume_protection;
mod writes;

use crate::cache::Caches;
use crate::events::Recorder;
use crate::task::Group;
use driver::{Controller, Counters};
use kube::Client;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What controllers need to know of the cluster, checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Pod networks, one or two (dual stack): `10.42.0.0/16`. Empty: nodes get no podCIDR from us.
    pub cluster_cidrs: Vec<String>,
    /// Bits of a node's part of them, for IPv4 and IPv6.
    pub node_mask_v4: u8,
    pub node_mask_v6: u8,
    /// PEM of the CA that pods trust, for `kube-root-ca.crt`.
    pub root_ca: String,
    /// A node silent for this long is lost [default: 40 s].
    pub node_grace: Option<Duration>,
    pub certificates: certificates::Settings,
}

/// What a controller is made from; `client` carries its own identity.
pub struct Context {
    pub client: Client,
    pub caches: Arc<Caches>,
    pub recorder: Recorder,
    pub config: Arc<Config>,
    pub group: Group,
}

impl Context {
    /// `component`: its name in Events.
    fn new(client: Client, component: &str, caches: &Arc<Caches>, config: &Arc<Config>, group: &Group) -> Self {
        let recorder = Recorder::new(client.clone(), component, "", group);
        Context { client, caches: caches.clone(), recorder, config: config.clone(), group: group.clone() }
    }
}

/// A controller's maker, with the identity of its requests: upstream's service account, whose role it has.
type Entry = (&'static str, fn(&Context) -> Box<dyn Controller>);

/// Every controller. A new one is a file and a line.
const TABLE: &[Entry] = &[
    ("deployment-controller", deployment::new),
    ("replicaset-controller", replicas::replicasets),
    ("replication-controller", replicas::replicationcontrollers),
    ("endpointslice-controller", endpoints::endpointslices),
    ("endpoint-controller", endpoints::endpoints),
    ("endpointslicemirroring-controller", endpoints::mirror),
    ("namespace-controller", namespace::new),
    ("service-account-controller", serviceaccount::new),
    ("root-ca-cert-publisher", root_ca::new),
    ("node-controller", node_ipam::new),
    ("node-controller", node_lifecycle::new),
    ("node-controller", taint_eviction::new),
    ("pod-garbage-collector", pod_gc::new),
    ("generic-garbage-collector", gc::new),
    ("node-certificate-approver", certificates::approver),
    ("node-certificate-approver", certificates::node_keys),
    ("certificate-controller", certificates::signer),
    ("certificate-controller", certificates::cleaner),
    ("pvc-protection-controller", volume_protection::claims),
    ("pv-protection-controller", volume_protection::volumes),
    ("token-cleaner", bootstrap_tokens::cleaner),
    ("bootstrap-signer", bootstrap_tokens::signer),
];

/// The scheduler's identity, and its lease.
pub const SCHEDULER: &str = "kube-scheduler";
/// The identity behind the controllers' caches, and their lease.
pub const MANAGER: &str = "kube-controller-manager";

/// Counters of everything that [`run`] started.
#[derive(Clone, Default)]
pub struct Metrics {
    controllers: Vec<(&'static str, Arc<Counters>)>,
}

impl Metrics {
    /// In Prometheus' text format, under upstream's names.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, read: &dyn Fn(&Counters) -> f64| {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (controller, counters) in &self.controllers {
                let _ = writeln!(text, "{name}{{name=\"{controller}\"}} {}", read(counters));
            }
        };
        family("workqueue_depth", "gauge", &|c| c.depth.load(Ordering::Relaxed) as f64);
        family("workqueue_adds_total", "counter", &|c| c.adds.load(Ordering::Relaxed) as f64);
        family("workqueue_retries_total", "counter", &|c| c.retries.load(Ordering::Relaxed) as f64);
        family("workqueue_work_duration_seconds_sum", "counter", &|c| {
            c.work_micros.load(Ordering::Relaxed) as f64 / 1e6
        });
        family("workqueue_work_duration_seconds_count", "counter", &|c| c.reconciles.load(Ordering::Relaxed) as f64);
        family("kedge_reconcile_errors_total", "counter", &|c| c.errors.load(Ordering::Relaxed) as f64);
        text
    }
}

/// Whose requests the controllers make, each once.
pub fn identities() -> BTreeSet<&'static str> {
    TABLE.iter().map(|(identity, _)| *identity).collect()
}

/// Start all controllers in `group`. `clients` gives a client with the named identity (`deployment-controller`).
pub fn run(clients: &dyn Fn(&str) -> Client, caches: &Arc<Caches>, config: Config, group: &Group) -> Metrics {
    let config = Arc::new(config);
    let mut metrics = Metrics::default();
    for (identity, new) in TABLE {
        let context = Context::new(clients(identity), identity, caches, &config, group);
        let (controller, counters) = (new(&context), Arc::<Counters>::default());
        metrics.controllers.push((controller.name(), counters.clone()));
        driver::start(controller, counters, group);
    }
    metrics
}

/// Start the scheduler in `group`. `client`: as [`SCHEDULER`].
pub fn schedule(client: Client, caches: &Arc<Caches>, group: &Group) {
    let context = Context::new(client, "default-scheduler", caches, &Arc::default(), group);
    group.spawn("scheduler", scheduler::run(context));
}
