//! An API server in memory with bootstrap, all controllers, and nodes whose pods run at once.

use k8s_openapi::api::core::v1::{Node, Pod};
use kedge::cache::{Caches, Key, Notice};
use kedge::controllers::{
    self,
    certificates::{Settings, Signer},
};
use kedge::pki::{Pki, PkiConfig, Request};
use kedge::server::api::{Api, Parts};
use kedge::server::authn::service_account_user;
use kedge::server::bootstrap;
use kedge::server::registry::Registry;
use kedge::server::request::UserInfo;
use kedge::server::security::Security;
use kedge::task::Group;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub struct Cluster {
    pub client: Client,
    server: Arc<Api>,
    group: Group,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.group.cancel();
    }
}

fn pki_config() -> PkiConfig {
    PkiConfig {
        node_name: "n1".into(),
        node_ips: vec![],
        service_ips: vec![],
        cluster_domain: "cluster.local".into(),
        tls_sans: vec![],
        life: kedge::pki::LEAF_LIFE,
    }
}

fn bootstrap_config() -> bootstrap::Config {
    bootstrap::Config {
        advertise_address: "192.0.2.1".parse().unwrap(),
        servers: vec!["192.0.2.1".parse().unwrap()],
        https_port: 6443,
        service_cidr: "10.43.0.0/16".into(),
        service_ip: "10.43.0.1".parse().unwrap(),
        cluster_dns: "10.43.0.10".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        cluster_cidr: "10.42.0.0/16".into(),
        server_ca: "server".into(),
        client_ca: "client".into(),
        request_header_ca: "front".into(),
    }
}

/// All signers sign with the CA of clients.
fn certificates(pki: Pki) -> Settings {
    let sign = move |_: &str, request: &Request, usages: &[String], life: i64| {
        pki.client_ca().sign_as_asked(request, usages, life)
    };
    Settings { signer: Some(Signer(Arc::new(sign))), ..Default::default() }
}

impl Cluster {
    /// With nodes n1, n2, … of 4 CPUs.
    pub async fn start(nodes: usize) -> Self {
        if let Ok(filter) = std::env::var("KEDGE_TEST_LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(dir.path(), pki_config()).unwrap();
        let group = Group::root();
        let registry = Registry::new(kedge::store::memory::Memory::open());
        let security = Security::start(&registry, &pki, "cluster.local", "https://192.0.2.1:6443", &group);
        let mut parts = Parts::new(registry.clone());
        security.install(&mut parts);
        let api = Api::new(parts);
        security.synced().await;
        let as_user = |user: UserInfo| kedge::client::local(api.local(user));
        let master = as_user(UserInfo::authenticated("admin", &[UserInfo::MASTERS]));
        bootstrap::run(&as_user(UserInfo::authenticated(bootstrap::USER, &[UserInfo::MASTERS])), &bootstrap_config())
            .await
            .unwrap();
        let manager = as_user(UserInfo::authenticated("system:kube-controller-manager", &[]));
        let caches = Caches::new(manager, group.child());
        let clients = |controller: &str| as_user(service_account_user("kube-system", controller));
        let config = controllers::Config {
            cluster_cidrs: vec!["10.42.0.0/16".into()],
            node_mask_v4: 24,
            node_mask_v6: 64,
            root_ca: "a CA".into(),
            certificates: certificates(pki),
            node_grace: None,
        };
        controllers::run(&clients, &caches, config, &group.child());
        let scheduler = as_user(UserInfo::authenticated("system:kube-scheduler", &[]));
        controllers::schedule(scheduler, &caches, &group.child());
        group.spawn("kubelets", kubelets(master.clone(), Caches::new(master.clone(), group.child())));
        let cluster = Cluster { client: master, server: api, group, _dir: dir };
        for n in 1..=nodes {
            cluster.add_node(&format!("n{n}"), "4").await;
        }
        cluster
    }

    pub async fn add_node(&self, name: &str, cpus: &str) {
        let api = self.all::<Node>();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        api.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let resources = json!({"cpu": cpus, "memory": "8Gi", "pods": "110"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"capacity": resources, "allocatable": resources, "conditions": [ready]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    }

    /// A client of somebody else.
    pub fn client_of(&self, user: &str, groups: &[&str]) -> Client {
        kedge::client::local(self.server.local(UserInfo::authenticated(user, groups)))
    }

    pub fn api<K>(&self, namespace: &str) -> kube::Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        kube::Api::namespaced(self.client.clone(), namespace)
    }

    pub fn all<K: Resource<DynamicType = ()>>(&self) -> kube::Api<K> {
        kube::Api::all(self.client.clone())
    }

    /// Create an object of any kind; namespace "" for cluster scope.
    pub async fn create(&self, namespace: &str, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = kedge::object::split_api_version(&types.api_version);
        let plural = format!("{}s", types.kind.to_lowercase());
        let (group, version, api_version, kind) = (group.into(), version.into(), types.api_version.clone(), types.kind);
        let resource = ApiResource { group, version, api_version, kind, plural };
        let api: kube::Api<DynamicObject> = match namespace {
            "" => kube::Api::all_with(self.client.clone(), &resource),
            _ => kube::Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        // The ServiceAccount admission wants the default account, which a controller makes.
        settles("create", async || match api.create(&PostParams::default(), &object).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.is_forbidden() => false,
            Err(error) => panic!("{error}"),
        })
        .await;
    }
}

/// Wait until something is so; at most a minute, on a busy machine.
pub async fn settles(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never so: {what}");
}

/// Every kubelet: pods bound to a node run and are ready at once; deleted ones go at once.
async fn kubelets(client: Client, caches: Arc<Caches>) {
    let pods = caches.of::<Pod>();
    let mut changes = pods.subscribe();
    while let Some(notice) = changes.next().await {
        let Notice::Change(change) = notice else { panic!("too many changes") };
        if let Some(pod) = change.new {
            act(&client, &change.key, &pod).await;
        }
    }
}

async fn act(client: &Client, key: &Key, pod: &Pod) {
    static ADDRESSES: AtomicU32 = AtomicU32::new(1);
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), &key.namespace);
    let bound = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let running = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
    if pod.metadata.deletion_timestamp.is_some() {
        ignore(api.delete(&key.name, &DeleteParams::default().grace_period(0)).await.map(|_| ()));
    } else if bound && !running {
        let n = ADDRESSES.fetch_add(1, Ordering::Relaxed);
        let ip = format!("10.42.{}.{}", n / 250, n % 250 + 1);
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]});
        let change = Patch::Strategic(json!({"status": status}));
        ignore(api.patch_status(&key.name, &PatchParams::default(), &change).await.map(|_| ()));
    }
}

/// Objects may go while the stand-in works on them.
fn ignore<T: DeserializeOwned + Debug>(result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
        Err(error) => panic!("{error}"),
        Ok(_) => {}
    }
}
