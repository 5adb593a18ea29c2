//! The whole network part of a node, started as the agent starts it, in a network namespace of its own, against an API
//! server of a few lines; with the CNI plugin's own request over the socket. Need root.

use super::traffic_tests::{Namespace, root};
use super::*;
use axum::body::Body;
use futures::StreamExt;
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lists and watches of a few kinds, by path.
#[derive(Clone)]
struct FakeApi {
    objects: Arc<Mutex<BTreeMap<(String, String), Value>>>,
    events: broadcast::Sender<(String, Value)>,
    revision: Arc<Mutex<u64>>,
}

impl FakeApi {
    fn new() -> Self {
        FakeApi { objects: Arc::default(), events: broadcast::channel(100).0, revision: Arc::new(Mutex::new(1)) }
    }

    /// Create or replace an object of the kind that `path` lists.
    fn put(&self, path: &str, mut object: Value) {
        let mut revision = self.revision.lock();
        *revision += 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let name = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
        let known = self.objects.lock().insert((path.to_owned(), name), object.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        let _ = self.events.send((path.to_owned(), json!({ "type": kind, "object": object })));
    }

    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let body = if request.uri().query().unwrap_or_default().contains("watch=true") {
                let wanted = path.clone();
                let stream = tokio_stream::wrappers::BroadcastStream::new(api.events.subscribe());
                Body::from_stream(stream.filter_map(move |event| {
                    let line = event.ok().filter(|(path, _)| *path == wanted).map(|(_, event)| format!("{event}\n"));
                    async move { line.map(Ok::<_, std::io::Error>) }
                }))
            } else {
                let objects = api.objects.lock();
                let items: Vec<_> = objects.iter().filter(|((p, _), _)| *p == path).map(|(_, o)| o.clone()).collect();
                let revision = api.revision.lock().to_string();
                Body::from(json!({ "metadata": { "resourceVersion": revision }, "items": items }).to_string())
            };
            async move { Ok::<_, std::convert::Infallible>(Response::new(body)) }
        });
        kube::Client::new(service, "default")
    }
}

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const NODES: &str = "/api/v1/nodes";

/// One start of the network part; it ends with [`Running::stop`].
struct Running {
    config: Config,
    group: Group,
}

impl Running {
    async fn start(api: &FakeApi, dir: &Path) -> Self {
        let config = Config {
            node_name: "here".into(),
            node_ip: [192, 0, 2, 1].into(),
            cluster_cidr: "10.42.0.0/16".into(),
            service_cidr: "10.43.0.0/16".into(),
            cluster_dns: [10, 43, 0, 10].into(),
            foreign_dns: false,
            cluster_domain: "cluster.local".into(),
            node_port_range: (30000, 32767),
            resolv_conf: Some("/nonexistent".into()),
            dir: dir.join("network"),
            run_dir: dir.join("run"),
            table: "kedge-test".into(),
            interface_prefix: "kdg".into(),
            cni_conf_dir: dir.join("net.d"),
            cni_bin_dir: dir.join("bin"),
        };
        let group = Group::root();
        let caches = Caches::new(api.client(), group.clone());
        run(config.clone(), api.client(), caches, group.clone()).await.unwrap();
        let conflist = config.cni_conf_dir.join(CONFLIST);
        let socket = config.run_dir.join(SOCKET);
        until("the runtime is told", || conflist.exists() && UnixStream::connect(&socket).is_ok()).await;
        Running { config, group }
    }

    async fn stop(self) -> Config {
        self.group.join(PATIENCE).await.unwrap();
        self.config
    }

    /// What the plugin does, with the configuration that the runtime would give it.
    async fn cni(&self, command: &str, id: &str, netns: &Path, ports: Value) -> Result<Value, Value> {
        let conflist: Value =
            serde_json::from_slice(&std::fs::read(self.config.cni_conf_dir.join(CONFLIST)).unwrap()).unwrap();
        let mut conf = conflist["plugins"][0].clone();
        conf["cniVersion"] = conflist["cniVersion"].clone();
        conf["runtimeConfig"] = json!({ "portMappings": ports });
        let request = json!({ "command": command, "container_id": id, "netns": netns, "ifname": "eth0",
            "args": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web", "config": conf });
        let socket = self.config.run_dir.join(SOCKET);
        let answer = Group::blocking(move || -> std::io::Result<Value> {
            let mut stream = UnixStream::connect(socket)?;
            stream.write_all(request.to_string().as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(serde_json::from_str(&text)?)
        });
        let answer = answer.await.unwrap().unwrap();
        match answer.get("failed") {
            Some(failure) => Err(failure.clone()),
            None => Ok(answer["done"].clone()),
        }
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Run a test on a thread in a network namespace of its own; threads of its runtime are born there too.
fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce(Namespace) -> F + Send) {
    if !root() {
        return;
    }
    let work = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let here = Namespace::of_this_thread();
        here.ip("link set lo up");
        here.ip("link add uplink type veth peer name far");
        here.ip("address add 192.0.2.1/24 dev uplink");
        here.ip("link set uplink up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(here));
    };
    if let Err(error) = crate::task::on_own_thread("node", work) {
        panic!("{error}");
    }
}

fn service(name: &str, cluster_ip: &str) -> Value {
    json!({ "metadata": { "namespace": "default", "name": name },
        "spec": { "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{ "port": 80 }] } })
}

fn slice(service: &str, address: &str) -> Value {
    json!({ "metadata": { "namespace": "default", "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 8080 }],
        "endpoints": [{ "addresses": [address], "nodeName": "here", "conditions": { "ready": true } }] })
}

fn node() -> Value {
    json!({ "metadata": { "name": "here" }, "spec": { "podCIDRs": ["10.42.3.0/24"] } })
}

#[test]
fn pods_get_addresses_services_and_names() {
    on_a_node(|here| async move {
        let dir = tempfile::tempdir().unwrap();
        let api = FakeApi::new();
        api.put(NODES, node());
        api.put(SERVICES, service("web", "10.43.0.80"));
        let running = Running::start(&api, dir.path()).await;

        let (web, client) = (Namespace::new(), Namespace::new());
        let ports = json!([{ "hostPort": 8000, "containerPort": 8080, "protocol": "tcp", "hostIP": "" }]);
        let made = running.cni("ADD", "web", &web.path(), ports).await.unwrap();
        assert_eq!(made["ips"][0]["address"], "10.42.3.2/32");
        assert_eq!(made["interfaces"][1]["name"], "eth0");
        running.cni("ADD", "client", &client.path(), json!([])).await.unwrap();
        running.cni("CHECK", "web", &web.path(), json!([])).await.unwrap();
        assert_eq!(running.cni("CHECK", "nobody", &web.path(), json!([])).await.unwrap_err()["code"], 3);
        web.serve("web", 8080);
        assert_eq!(here.call("192.0.2.1:8000").unwrap(), "web 192.0.2.1");
        client.refused("10.43.0.80:80");

        api.put(SLICES, slice("web", "10.42.3.2"));
        until("the Service is served", || client.call("10.43.0.80:80").is_ok()).await;
        let looked_up = {
            let client = client.path();
            Group::blocking(move || netns::within(&client, || lookup("web.default.svc.cluster.local"))).await.unwrap()
        };
        assert_eq!(looked_up.unwrap(), "10.43.0.80");

        // Another program flushes everything.
        here.run("nft", "flush ruleset");
        let broken = Instant::now();
        until("healed", || client.call("10.43.0.80:80").is_ok() && here.call("192.0.2.1:8000").is_ok()).await;
        println!("healed after {:?}", broken.elapsed());

        running.cni("DEL", "web", &web.path(), json!([])).await.unwrap();
        running.cni("DEL", "web", &web.path(), json!([])).await.unwrap();
        assert!(!web.ip("link").contains("eth0"));
        here.refused("192.0.2.1:8000");

        let config = running.stop().await;
        cleanup(&config.run_dir).await.unwrap();
        assert_eq!(here.run("nft", "list ruleset"), "");
        assert!(
            !here.ip("link").contains("kdg")
                && !here.ip("route").contains("10.43")
                && !here.ip("address").contains("10.43")
        );
        assert_eq!(std::fs::read_dir(&config.cni_bin_dir).unwrap().count(), 0);
        cleanup(&config.run_dir).await.unwrap();
    });
}

#[test]
fn a_restart_keeps_what_runs() {
    on_a_node(|here| async move {
        let dir = tempfile::tempdir().unwrap();
        let api = FakeApi::new();
        api.put(NODES, node());
        api.put(SERVICES, service("web", "10.43.0.80"));
        api.put(SLICES, slice("web", "10.42.3.2"));
        let running = Running::start(&api, dir.path()).await;
        let (web, gone) = (Namespace::new(), Namespace::new());
        running.cni("ADD", "web", &web.path(), json!([])).await.unwrap();
        // A name of its own, since numbers of descriptors come again.
        let name = dir.path().join("gone");
        symlink(gone.path(), &name).unwrap();
        let leaked = running.cni("ADD", "gone", &name, json!([])).await.unwrap();
        assert_eq!(leaked["ips"][0]["address"], "10.42.3.3/32");
        web.serve("web", 8080);
        until("served", || here.call("10.43.0.80:80").is_ok()).await;
        running.stop().await;
        assert!(here.call("10.43.0.80:80").is_ok(), "while nobody keeps the rules");
        drop(gone);
        std::fs::remove_file(&name).unwrap();

        // The Service is another one now, and one pod ended unseen.
        api.put(SERVICES, service("web", "10.43.0.81"));
        let running = Running::start(&api, dir.path()).await;
        until("the new address is served", || here.call("10.43.0.81:80").is_ok()).await;
        here.refused("10.43.0.80:80");
        let next = Namespace::new();
        let made = running.cni("ADD", "next", &next.path(), json!([])).await.unwrap();
        assert_eq!(made["ips"][0]["address"], "10.42.3.3/32", "the leaked address came back, the living pod's did not");
        assert_eq!(here.ip("route").matches("dev kdg").count(), 2);
        running.stop().await;
    });
}

/// Ask the cluster DNS address for an A record with a question of our own making.
fn lookup(name: &str) -> std::io::Result<String> {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::A));
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&message.to_vec().unwrap(), "10.43.0.10:53")?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(Message::from_vec(&buffer[..length]).unwrap().answers[0].data.to_string())
}
