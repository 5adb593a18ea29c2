//! Keeps our tables what Services, EndpointSlices and pods say: woken by keys, heals what others break.

use super::net::Family;
use super::nft::{Foreign, Monitor};
use super::plan::{self, Here, HostPort, Plan};
use super::rules::Setting;
use super::state::Owner;
use super::tables::Tables;
use super::{Shared, host};
use crate::cache::{Cache, Cached, Changes, Index, Key, Notice};
use crate::task::Group;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};

/// After a failed write: the first wait and the longest. The next write is of the whole table.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Between two repairs of what others broke, so that two programs that fight do not fill the machine.
const HEAL_PAUSE: Duration = Duration::from_millis(300);
/// How often the node's own settings and the presence of our tables are looked at, come what may.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// EndpointSlices by "namespace/name" of their Service.
pub fn by_service() -> Index<EndpointSlice> {
    Index { name: "service", values: |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect() }
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(Key::new(slice.metadata.namespace.clone()?, name.clone()))
}

/// The proxy of this node. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    /// Of this node, as its Node object says.
    zone: Mutex<String>,
    tables: Arc<Mutex<Tables>>,
    /// Bounded by what exists: each owner is in here at most once.
    todo: Mutex<Todo>,
    wake: Notify,
}

#[derive(Default)]
struct Todo {
    services: BTreeSet<Key>,
    all_services: bool,
    pods: BTreeMap<String, Vec<(Family, Plan)>>,
    /// The tables may not be what we wrote.
    distrust: bool,
    waiters: Vec<oneshot::Sender<()>>,
}

/// A pod that was connected before this start.
pub struct RunningPod {
    pub container_id: String,
    pub addresses: Vec<IpAddr>,
    pub host_ports: Vec<HostPort>,
}

/// What the kernel has of us when we start.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    /// Nothing, or it is ours since this start: write freely.
    Ours,
    /// The table of a former start. It serves until we know all Services.
    Former,
}

impl Proxy {
    /// Open the tables and start keeping them, with the rules of the pods that run already.
    pub fn start(
        shared: Arc<Shared>,
        services: Cache<Service>,
        slices: Cache<EndpointSlice>,
        running: &[RunningPod],
        group: &Group,
    ) -> anyhow::Result<Self> {
        let mut tables = Tables::open(&shared.config.table, shared.settings.clone())?;
        let found = if tables.present()? { Found::Former } else { Found::Ours };
        let monitor = Monitor::open()?;
        let port = tables.port();
        let rules =
            |pod: &RunningPod| (pod.container_id.clone(), pod_plans(&shared.settings, &pod.addresses, &pod.host_ports));
        let todo = Todo { pods: running.iter().map(rules).collect(), ..Todo::default() };
        let inner = Inner {
            shared,
            zone: Mutex::default(),
            tables: Arc::new(Mutex::new(tables)),
            todo: Mutex::new(todo),
            wake: Notify::new(),
            services: services.clone(),
            slices: slices.clone(),
        };
        let proxy = Proxy { inner: Arc::new(inner) };
        let service_changes = services.subscribe();
        let slice_changes = slices.subscribe();
        group.spawn("proxy-services", proxy.clone().follow(service_changes, |_, key| Some(key.clone())));
        group.spawn("proxy-endpoints", proxy.clone().follow(slice_changes, |slice, _| service_of(slice)));
        group.spawn("proxy-monitor", proxy.clone().watch_tables(monitor, port));
        group.spawn("proxy-look", proxy.clone().look());
        group.spawn("proxy", proxy.clone().keep(found));
        Ok(proxy)
    }

    /// The zone that this node is in now.
    pub fn set_zone(&self, zone: &str) {
        if std::mem::replace(&mut *self.inner.zone.lock(), zone.to_owned()) != zone {
            self.inner.note(|todo| todo.all_services = true);
        }
    }

    /// Make a pod's rules; resolves when the kernel has them. No address: the pod is gone.
    pub async fn pod(&self, container_id: &str, addresses: &[IpAddr], host_ports: &[HostPort]) {
        let (sender, done) = oneshot::channel();
        let plans = pod_plans(&self.inner.shared.settings, addresses, host_ports);
        self.inner.note(|todo| {
            todo.pods.insert(container_id.to_owned(), plans);
            todo.waiters.push(sender);
        });
        // An error means that the process stops.
        let _ = done.await;
    }

    async fn follow<K: Cached>(self, mut changes: Changes<K>, owner: fn(&K, &Key) -> Option<Key>) {
        while let Some(notice) = changes.next().await {
            self.inner.note(|todo| match notice {
                Notice::Resync => todo.all_services = true,
                Notice::Change(change) => {
                    let objects = [&change.old, &change.new].into_iter().flatten();
                    todo.services.extend(objects.filter_map(|object| owner(object, &change.key)));
                }
            });
        }
    }

    async fn watch_tables(self, monitor: Monitor, our_port: u32) {
        // SAFETY: the descriptor is the monitor's own, stays open while it lives, and nothing below replaces it.
        let Ok(mut monitor) = (unsafe { AsyncFd::register(MonitorFd(monitor)) }) else {
            return error!("nftables cannot be watched: a flushed table is healed only every {LOOK_INTERVAL:?}");
        };
        let table = self.inner.shared.config.table.clone();
        loop {
            let Ok(mut ready) = monitor.readable_mut().await else { return };
            let seen = ready.get_inner_mut().0.damaged(&table, our_port);
            ready.clear_ready();
            let damaged = match seen {
                Ok(damaged) => damaged,
                // More notifications than the queue holds, most likely of our own large change.
                Err(_) => !self.tables_present().await,
            };
            if damaged {
                info!(table, "another program changed our nftables table; writing it anew");
                self.inner.note(|todo| todo.distrust = true);
                tokio::time::sleep(HEAL_PAUSE).await;
            }
        }
    }

    async fn tables_present(&self) -> bool {
        let tables = self.inner.tables.clone();
        let present = Group::blocking(move || tables.lock().present()).await;
        matches!(present, Ok(Ok(true)))
    }

    /// What no notification tells: flushed addresses and routes, foreign firewalls, lost notifications.
    async fn look(self) {
        let mut told = Vec::new();
        loop {
            let (tables, shared) = (self.inner.tables.clone(), self.inner.shared.clone());
            let seen = Group::blocking(move || {
                if !host::intact(&shared.settings)? {
                    host::prepare(&shared.settings, &shared.config.table)?;
                }
                let mut tables = tables.lock();
                anyhow::Ok((tables.present()?, tables.pass_others()?))
            });
            match seen.await.and_then(|seen| seen) {
                Ok((present, passed)) => {
                    self.tell_of_others(&passed.now, &passed.refused, &told);
                    told = passed.refused;
                    if !present {
                        self.inner.note(|todo| todo.distrust = true);
                    }
                }
                Err(error) => warn!(error = format!("{error:#}"), "the node's network cannot be looked at"),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn tell_of_others(&self, now: &[Foreign], refused: &[(Foreign, String)], told: &[(Foreign, String)]) {
        let prefix = &self.inner.shared.config.interface_prefix;
        for chain in now {
            info!(chain = %chain, "another firewall drops what is forwarded; rules at its head let interfaces {prefix}* and pods' addresses pass");
        }
        for (chain, error) in refused.iter().filter(|r| !told.contains(r)) {
            warn!(
                chain = %chain, error,
                "another firewall drops what is forwarded and does not let us add a rule: pods may not reach each other or the \
                 outside. Let it accept what enters or leaves by interfaces {prefix}* (firewalld: put {} into the zone trusted)",
                self.inner.shared.config.cluster_cidr,
            );
        }
    }

    /// The only place that writes.
    async fn keep(self, mut found: Found) {
        let mut retry = RETRY_FIRST;
        let mut knows_services = false;
        self.inner.wake.notify_one();
        loop {
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = self.synced(), if !knows_services => {
                    knows_services = true;
                    self.inner.note(|todo| {
                        todo.all_services = true;
                        todo.distrust = true;
                    });
                }
            }
            let todo = std::mem::take(&mut *self.inner.todo.lock());
            if todo.distrust {
                // What served is gone or about to be replaced by the truth.
                found = Found::Ours;
            }
            let work = Work { todo, knows_services, found };
            let (result, todo) = work.run(&self.inner).await;
            match result {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    todo.waiters.into_iter().for_each(|waiter| {
                        let _ = waiter.send(());
                    });
                }
                Err(error) => {
                    error!(
                        error = format!("{error:#}"),
                        retry_ms = retry.as_millis() as u64,
                        "nftables cannot be written"
                    );
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_LONGEST);
                    self.inner.note(|waiting| {
                        waiting.distrust = true;
                        waiting.all_services = knows_services;
                        waiting.waiters.extend(todo.waiters);
                    });
                }
            }
        }
    }

    async fn synced(&self) {
        self.inner.services.synced().await;
        self.inner.slices.synced().await;
    }
}

impl Inner {
    fn note(&self, what: impl FnOnce(&mut Todo)) {
        what(&mut self.todo.lock());
        self.wake.notify_one();
    }
}

/// One round of writing.
struct Work {
    todo: Todo,
    knows_services: bool,
    found: Found,
}

impl Work {
    async fn run(mut self, inner: &Inner) -> (anyhow::Result<()>, Todo) {
        let tables = inner.tables.clone();
        let plans = if self.knows_services { self.service_plans(inner) } else { BTreeMap::new() };
        let pods = std::mem::take(&mut self.todo.pods);
        let (distrust, all, former) = (self.todo.distrust, self.todo.all_services, self.found == Found::Former);
        let written = Group::blocking(move || {
            let mut tables = tables.lock();
            for (id, plans) in pods {
                let owner = Owner::Pod(id);
                plans.into_iter().for_each(|(family, plan)| tables.replace(family, &owner, plan));
            }
            if all {
                let gone = tables
                    .owners()
                    .into_iter()
                    .filter(|o| matches!(o, Owner::Service(key) if !plans.contains_key(key)));
                let families: Vec<_> = tables.families().collect();
                for owner in gone {
                    families.iter().for_each(|family| tables.replace(*family, &owner, Plan::default()));
                }
            }
            for (key, plans) in plans {
                let owner = Owner::Service(key);
                plans.into_iter().for_each(|(family, plan)| tables.replace(family, &owner, plan));
            }
            if former {
                return tables.add_to_former();
            }
            if distrust {
                tables.distrust();
            }
            tables.apply()
        });
        let result = written.await.and_then(|result| result.map_err(Into::into));
        (result, self.todo)
    }

    fn service_plans(&self, inner: &Inner) -> BTreeMap<Key, Vec<(Family, Plan)>> {
        let keys = if self.todo.all_services {
            inner.services.list().iter().map(|service| Key::of(&**service)).collect()
        } else {
            self.todo.services.clone()
        };
        keys.into_iter().map(|key| (key.clone(), plans_of(&key, inner))).collect()
    }
}

fn pod_plans(settings: &[Setting], addresses: &[IpAddr], host_ports: &[HostPort]) -> Vec<(Family, Plan)> {
    let of = |s: &Setting| addresses.iter().find(|a| Family::of(**a) == s.family).map(|a| plan::pod(*a, host_ports));
    settings.iter().map(|s| (s.family, of(s).unwrap_or_default())).collect()
}

fn plans_of(key: &Key, inner: &Inner) -> Vec<(Family, Plan)> {
    let service = inner.services.at(key);
    let slices = inner.slices.by(&by_service(), &key.to_string());
    let (node_name, zone) = (&inner.shared.config.node_name, inner.zone.lock().clone());
    let plan = |setting: &Setting| {
        let here = Here { node_name, zone: &zone, node_ip: setting.node, family: setting.family };
        service.as_ref().map(|service| plan::service(service, &slices, here)).unwrap_or_default()
    };
    inner.shared.settings.iter().map(|setting| (setting.family, plan(setting))).collect()
}

/// A monitor as tokio wants it.
struct MonitorFd(Monitor);

impl AsRawFd for MonitorFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}

impl AsFd for MonitorFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}
