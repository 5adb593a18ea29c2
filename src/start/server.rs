//! What runs in a server, in which order.

use super::{Running, node, signing, unplugged};
use crate::cache::Caches;
use crate::events::{Recorder, Warning};
use crate::join::Settings;
use crate::pki::{Pki, PkiConfig};
use crate::server::admission::{self, DefaultTolerationSeconds};
use crate::server::allocation::Network;
use crate::server::api::{Api, Parts};
use crate::server::at_rest::shared::SharedKeys;
use crate::server::at_rest::{self, Sealed};
use crate::server::authn::service_account_user;
use crate::server::bootstrap;
use crate::server::common_keys;
use crate::server::companions::{self, Companion};
use crate::server::dial::Dialer;
use crate::server::join::Join;
use crate::server::kubelet::{Identity, Kubelets};
use crate::server::maintenance;
use crate::server::registry::Registry;
use crate::server::request::UserInfo;
use crate::server::security::Security;
use crate::store::etcd::Etcd;
use crate::store::face::Face;
use crate::store::local::{Local, Options};
use crate::store::snapshots::rolling;
use crate::store::{Store, compactor, lease};
use crate::task::Group;
use crate::wire::listener::Listener;
use crate::{backup, config, controllers, durable, leader};
use anyhow::Context;
use bytes::Bytes;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// How often certificates are looked at for renewal.
const RENEWAL_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// What is written all the time and may lose its last minutes when the machine stops unexpectedly: nodes' heartbeats and
/// Events. Other Leases elect leaders and are durable.
const VOLATILE: [&str; 2] = ["/registry/leases/kube-node-lease/", "/registry/events/"];

/// A loss that is not older was found at this start.
const FRESH_LOSS_SECONDS: i64 = 60;

/// Start a server; returns when the API answers and, with an agent, the node is registered.
pub async fn server(config: &config::Server, root: &Group) -> anyhow::Result<Running> {
    let started = Instant::now();
    unplugged::prepare(&config.node, root)?;
    let listener = Listener::bind(SocketAddr::new(config.bind_address, config.port))
        .await
        .context("the API's port cannot be used; choose another with --https-listen-port, or stop what uses it")?;
    let shared = shared_store(config).await?;
    let pki = Arc::new(pki(config)?);
    let (store, shared) = match shared {
        Some(store) => (store, true),
        None => (own_store(config)?, false),
    };
    let join = Arc::new(join(config, &pki)?);
    let sealed = Sealed::over(store.clone(), &config.node.data_dir).context("encryption of Secrets")?;
    let mut bootstrap_config = bootstrap_config(config, &pki);
    let mut together = None;
    if shared {
        let token = join.clone();
        let keys = SharedKeys::new(store.clone(), sealed.clone(), Box::new(move || token.token.current()));
        let mut companion = Companion::new(store.clone(), config.advertise_address, sealed.names());
        common_keys::publish(&*store, &config.node.data_dir, &join.token.current()?).await?;
        bootstrap_config.servers = companion.announce().await.context("telling other servers of this one")?;
        // After that no key is made that this server is not waited for to have.
        keys.catch_up().await.context("encryption of Secrets")?;
        together = Some((companion, keys));
    }
    let keys = together.as_ref().map(|(_, keys)| keys.clone());
    let api = api(config, &pki, &join, Storage { store: store.clone(), sealed, keys }, root).await?;
    listener.serve(pki.server_config()?, handler(&api), root);
    serve_etcd(config, &pki, store.clone(), root).await?;
    let bootstrapping = client(&api, masters(bootstrap::USER));
    bootstrap::run(&bootstrapping, &bootstrap_config).await.context("bootstrap")?;
    if let Some((companion, keys)) = together {
        companions::start(root, companion, bootstrapping, bootstrap_config);
        keys.follow(root);
    }
    write_kubeconfigs(config, &pki)?;
    info!(ms = started.elapsed().as_millis() as u64, "the API answers");
    api.set_ready();
    keep_snapshots(&store, root);
    if let Some(schedule) = config.backups.clone() {
        backup::start(root, store.clone(), config.node.data_dir.clone(), config.config.clone(), schedule);
    }
    tell_losses(&store, client(&api, masters("kedge")), &config.node.name, root);
    say_how_to_join(config, &join)?;
    api.start(root);

    renew_certificates(config, pki.clone(), root)?;
    let caches = Caches::new(client(&api, component(controllers::MANAGER)), root.clone());
    match shared {
        true => start_elected(config, &pki, &api, root)?,
        false => {
            start_scheduler(config, &api, &caches, root);
            start_controllers(config, &pki, &api, &caches, root);
        }
    }
    let mut pods = None;
    if config.agent {
        pods = start_node(config, &pki, &api, caches, root).await?;
        info!(ms = started.elapsed().as_millis() as u64, "the node is registered");
    }
    Ok(Running { store: Some(store), pods, run_dir: config.node.run_dir.clone() })
}

fn pki(config: &config::Server) -> anyhow::Result<Pki> {
    let names = PkiConfig {
        node_name: config.node.name.clone(),
        node_ips: [config.node.ip, config.advertise_address].into_iter().collect(),
        service_ips: vec![config.kubernetes_ip()],
        cluster_domain: config.cluster.cluster_domain.clone(),
        tls_sans: config.tls_san.clone(),
        life: config.certificate_life,
    };
    Pki::load_or_create(&config.node.data_dir.join("server/tls"), names).context("certificates")
}

/// Serve the store as etcd, too.
async fn serve_etcd(config: &config::Server, pki: &Pki, store: Arc<dyn Store>, root: &Group) -> anyhow::Result<()> {
    let Some(etcd) = config.etcd else { return Ok(()) };
    let listener = match Listener::bind(etcd.address).await {
        Ok(listener) => listener,
        Err(error) if etcd.required => return Err(error.context("--etcd-listen")),
        Err(error) => {
            warn!(
                error = format!("{error:#}"),
                "the store is not served as etcd; choose an address with --etcd-listen"
            );
            return Ok(());
        }
    };
    let scheme = if etcd.insecure { "http" } else { "https" };
    let url = format!("{scheme}://{}", listener.address()?);
    let (name, group) = (config.node.name.clone(), root.clone());
    let face = Arc::new(Face { store, name, url, progress_interval: etcd.progress_interval, group });
    let handler: crate::client::Handler = Arc::new(move |request| face.clone().handle(request));
    match etcd.insecure {
        true => listener.serve_plain(handler, root),
        false => listener.serve(pki.etcd().server_config()?, handler, root),
    }
    Ok(())
}

/// The etcd cluster that the server was told to use, with the keys that it holds for this server fetched.
async fn shared_store(config: &config::Server) -> anyhow::Result<Option<Arc<dyn Store>>> {
    let Some(datastore) = &config.datastore else { return Ok(None) };
    let store = Etcd::open(&datastore.endpoints, datastore.tls()?).await.context("cannot use --datastore-endpoint")?;
    common_keys::fetch(&*store, &config.node.data_dir, config.token.as_deref()).await?;
    Ok(Some(store))
}

fn own_store(config: &config::Server) -> anyhow::Result<Arc<dyn Store>> {
    let dir = config.node.data_dir.join("server/db");
    let volatile = VOLATILE.iter().map(|prefix| Bytes::from_static(prefix.as_bytes())).collect();
    let (engine, quota_bytes) = (Some(config.store_engine), config.store_quota);
    let store = Local::open(&dir, Options { engine, volatile, quota_bytes, ..Options::default() })
        .with_context(|| format!("cannot open the store in the data directory {}", config.node.data_dir.display()))?;
    Ok(store)
}

/// From these the store repairs itself.
fn keep_snapshots(store: &Arc<dyn Store>, root: &Group) {
    if let Some(rolling) = store.rolling() {
        rolling::start(root, store.clone(), rolling, rolling::Policy::default());
    }
}

/// Losses that opening the store has just found are made known in the cluster, too.
fn tell_losses(store: &Arc<dyn Store>, client: Client, node: &str, root: &Group) {
    let now = crate::time::now_seconds();
    for loss in store.condition().losses.iter().filter(|loss| now - loss.time < FRESH_LOSS_SECONDS) {
        let recorder = Recorder::new(client.clone(), "kedge", node, root);
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some("kube-system".to_owned()),
            ..Default::default()
        };
        recorder.event(&about, Warning, "StoreDataLost", loss.to_string());
    }
}

fn join(config: &config::Server, pki: &Pki) -> anyhow::Result<Join> {
    let settings = Settings {
        cluster: config.cluster.clone(),
        client_ca: pki.client_ca().pem().to_owned(),
        version: crate::KUBERNETES_VERSION.to_owned(),
    };
    Join::new(&config.node.data_dir, config.token.as_deref(), settings, pki.server_ca().pem().to_owned())
}

/// How other hosts join. The secret itself is shown to a person at a terminal, and only at the first start: logs are
/// read by many.
fn say_how_to_join(config: &config::Server, join: &Join) -> anyhow::Result<()> {
    let url = format!("https://{}", SocketAddr::new(config.advertise_address, config.port));
    if join.token.is_new() && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        eprintln!("\nOther hosts join with:\n\n  kedge agent --server {url} --token {}\n", join.token.current()?);
    }
    info!(
        "other hosts join with: kedge agent --server {url} --token-file FILE, a copy of {}",
        join.token.file().display()
    );
    Ok(())
}

/// The store, and as the API sees it.
struct Storage {
    store: Arc<dyn Store>,
    sealed: Arc<Sealed>,
    /// Where other servers use it, too.
    keys: Option<Arc<SharedKeys>>,
}

/// The API server with everything that decides who may do what.
async fn api(
    config: &config::Server,
    pki: &Pki,
    join: &Join,
    storage: Storage,
    root: &Group,
) -> anyhow::Result<Arc<Api>> {
    let Storage { store, sealed, keys } = storage;
    compactor::start(root, store.clone(), compactor::Policy::default());
    lease::start(root, store.clone());
    at_rest::start(root, sealed.clone());
    let registry = Registry::new(sealed.clone());
    let own = SocketAddr::new(config.advertise_address, config.port);
    let url = format!("https://{own}");
    let security = Security::start(&registry, pki, &config.cluster.cluster_domain, &url, root);
    security.synced().await;
    let (certificate, key) = pki.apiserver_to_kubelet();
    let identity = Identity { certificate, key, server_ca: pki.server_ca_file() };
    let mut parts = Parts::new(registry.clone());
    parts.network = Network {
        service_cidr: (config.cluster.service_cidr.address, config.cluster.service_cidr.bits),
        node_ports: config.cluster.node_ports,
    };
    let dialer = Dialer::default();
    parts.endpoints.push((crate::wire::tunnel::PATH, crate::server::tunnel::endpoint(dialer.tunnels().clone(), own)));
    parts.endpoints.push((maintenance::PATH, maintenance::serve(store, config.node.data_dir.join("server"))));
    parts.endpoints.push((at_rest::endpoint::PATH, at_rest::endpoint::serve(sealed, keys)));
    parts.kubelets = Some(Kubelets::new(identity, dialer, root.clone()));
    security.install(&mut parts);
    join.install(&mut parts);
    let tolerations =
        DefaultTolerationSeconds { not_ready: config.not_ready_seconds, unreachable: config.unreachable_seconds };
    admission::configure(&mut parts.plugins, tolerations);
    let api = Api::new(parts);
    security.start_aggregation(&registry, client(&api, component("clusterrole-aggregation-controller")), root);
    Ok(api)
}

/// The API for the listener: identities come from certificates and tokens.
fn handler(api: &Arc<Api>) -> crate::client::Handler {
    let api = api.clone();
    Arc::new(move |request| {
        let api = api.clone();
        Box::pin(async move { api.handle(request).await })
    })
}

/// A client in this process with an identity.
fn client(api: &Arc<Api>, user: UserInfo) -> Client {
    crate::client::local(api.local(user))
}

fn masters(name: &str) -> UserInfo {
    UserInfo::authenticated(name, &[UserInfo::MASTERS])
}

/// The identities of upstream's components, so that upstream's policy is exactly what they may do.
fn component(name: &str) -> UserInfo {
    match name {
        controllers::SCHEDULER | controllers::MANAGER => UserInfo::authenticated(&format!("system:{name}"), &[]),
        controller => service_account_user("kube-system", controller),
    }
}

fn bootstrap_config(config: &config::Server, pki: &Pki) -> bootstrap::Config {
    bootstrap::Config {
        advertise_address: config.advertise_address,
        servers: vec![config.advertise_address],
        https_port: config.port,
        service_cidr: config.cluster.service_cidr.to_string(),
        service_ip: config.kubernetes_ip(),
        cluster_dns: config.cluster.cluster_dns,
        cluster_domain: config.cluster.cluster_domain.clone(),
        cluster_cidr: config.cluster.cluster_cidr.to_string(),
        server_ca: pki.server_ca().pem().to_owned(),
        client_ca: pki.client_ca().pem().to_owned(),
        request_header_ca: pki.request_header_ca().pem().to_owned(),
    }
}

/// The kubeconfigs name an address that other machines reach, unless the API listens on loopback alone.
fn write_kubeconfigs(config: &config::Server, pki: &Pki) -> anyhow::Result<()> {
    let local = config.bind_address.is_loopback();
    let address = if local { config.bind_address } else { config.advertise_address };
    let url = format!("https://{}", SocketAddr::new(address, config.port));
    let text = pki.admin_kubeconfig(&url)?;
    let path = &config.kubeconfig;
    if let Some(parent) = path.parent() {
        durable::create_dir(parent, 0o755).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    durable::write(path, text.as_bytes(), config.kubeconfig_mode)
        .with_context(|| format!("cannot write {}", path.display()))?;
    pki.write_part_kubeconfigs(&config.node.data_dir.join("server/cred"), &url)
}

/// Certificates stay fresh by themselves; SIGUSR1 (`kedge certificate rotate`) renews all of them at once.
fn renew_certificates(config: &config::Server, pki: Arc<Pki>, root: &Group) -> anyhow::Result<()> {
    let config = config.clone();
    let period = RENEWAL_PERIOD.min(config.certificate_life / 10);
    let mut told = signal(SignalKind::user_defined1()).context("cannot listen to signals")?;
    root.spawn("certificates", async move {
        loop {
            let renewed = tokio::select! {
                () = crate::time::wait(period) => pki.renew(),
                _ = told.recv() => pki.rotate().map(|()| true),
            };
            // The kubeconfigs carry some of them.
            let outcome =
                renewed.and_then(|new| if new { write_kubeconfigs(&config, &pki).map(|()| true) } else { Ok(false) });
            match outcome {
                Ok(true) => info!("certificates were renewed"),
                Ok(false) => {}
                Err(error) => {
                    warn!(error = format!("{error:#}"), "certificates could not be renewed; trying again later")
                }
            }
        }
    });
    Ok(())
}

/// Servers that share a store: one of them runs the scheduler, one the controllers.
fn start_elected(config: &config::Server, pki: &Arc<Pki>, api: &Arc<Api>, root: &Group) -> anyhow::Result<()> {
    let manager = client(api, component(controllers::MANAGER));
    let scheduler = client(api, component(controllers::SCHEDULER));
    let (own, configured, served) = (manager.clone(), config.clone(), api.clone());
    leader::while_leading(&scheduler, controllers::SCHEDULER, root, move |term| {
        start_scheduler(&configured, &served, &Caches::new(own.clone(), term.clone()), term);
    })?;
    let (own, configured, served, pki) = (manager.clone(), config.clone(), api.clone(), pki.clone());
    leader::while_leading(&manager, controllers::MANAGER, root, move |term| {
        start_controllers(&configured, &pki, &served, &Caches::new(own.clone(), term.clone()), term);
    })
}

fn start_scheduler(config: &config::Server, api: &Arc<Api>, caches: &Arc<Caches>, root: &Group) {
    if !config.node.is_disabled("scheduler") {
        controllers::schedule(client(api, component(controllers::SCHEDULER)), caches, root);
    }
}

fn start_controllers(config: &config::Server, pki: &Arc<Pki>, api: &Arc<Api>, caches: &Arc<Caches>, root: &Group) {
    if config.node.is_disabled("controllers") {
        return;
    }
    let settings = controllers::Config {
        cluster_cidrs: vec![config.cluster.cluster_cidr.to_string()],
        node_mask_v4: config.node_mask,
        root_ca: pki.server_ca().pem().to_owned(),
        certificates: signing::by(pki, config.certificate_life),
        node_grace: Some(config.node_grace),
        ..Default::default()
    };
    controllers::run(&|name| client(api, component(name)), caches, settings, root);
}

/// This host as a node. Returns when the node is registered.
async fn start_node(
    config: &config::Server,
    pki: &Pki,
    api: &Arc<Api>,
    caches: Arc<Caches>,
    root: &Group,
) -> anyhow::Result<Option<crate::agent::shutdown::Pods>> {
    let user = UserInfo::authenticated(&format!("system:node:{}", config.node.name), &["system:nodes"]);
    let access = node::Access {
        client: client(api, user),
        line: None,
        caches,
        serving: pki.kubelet_serving(),
        client_ca: pki.client_ca().pem().to_owned(),
    };
    node::start(&config.node, &config.cluster, access, root).await
}
