//! Network namespaces as nodes, pods and machines outside; an API server of a few lines; and the whole network part of a
//! node, started as the agent starts it.

use crate::cache::Caches;
use crate::netproxy::overlay::Backend;
use crate::netproxy::{CONFLIST, Config, SOCKET, netns, run};
use crate::task::Group;
use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Longest wait for an answer; only what must fail waits this long.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for something that must happen.
const LONG: Duration = Duration::from_secs(60);

pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// A network namespace that lives as long as this.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let file = crate::task::on_own_thread("namespace", make).unwrap();
        let namespace = Namespace { file };
        namespace.ip("link set lo up");
        namespace
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    pub fn run(&self, program: &str, arguments: &str) -> String {
        netns::within(&self.path(), || {
            let out = Command::new(program).args(arguments.split(' ')).output()?;
            assert!(out.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&out.stderr));
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        })
        .unwrap()
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.run("ip", arguments)
    }

    /// A cable from here to there; both ends come up.
    pub fn wire(&self, link: &str, there: &Namespace, far: &str) {
        let there_is = format!("/proc/{}/fd/{}", std::process::id(), there.file.as_raw_fd());
        self.ip(&format!("link add name {link} type veth peer name {far} netns {there_is}"));
        self.ip(&format!("link set {link} up"));
        there.ip(&format!("link set {far} up"));
    }

    /// A server that answers every connection with its name and the caller's address.
    pub fn serve(&self, name: &'static str, port: u16) {
        let listener = netns::within(&self.path(), || TcpListener::bind(("0.0.0.0", port))).unwrap();
        crate::task::thread("test server", move || {
            for stream in listener.incoming().flatten() {
                let caller = stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default();
                let _ = (&stream).write_all(format!("{name} {caller}").as_bytes());
            }
        })
        .unwrap();
    }

    pub fn serve_udp(&self, name: &'static str, port: u16) {
        let socket = netns::within(&self.path(), || UdpSocket::bind(("0.0.0.0", port))).unwrap();
        crate::task::thread("test server", move || {
            let mut buffer = [0; 64];
            while let Ok((_, caller)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), caller);
            }
        })
        .unwrap();
    }

    /// "name caller's-address" of whoever answers.
    pub fn call(&self, target: &str) -> io::Result<String> {
        let target: SocketAddr = target.parse().unwrap();
        let mut stream = netns::within(&self.path(), || TcpStream::connect_timeout(&target, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub fn refused(&self, target: &str) {
        assert_eq!(self.call(target).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{target}");
    }

    /// Who answers how often.
    pub fn spread(&self, target: &str, calls: usize) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        for _ in 0..calls {
            let answer = self.call(target).unwrap_or_else(|e| panic!("{target}: {e}"));
            *seen.entry(answer.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        seen
    }
}

/// Lists and watches of a few kinds, by path.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<FakeState>>,
    /// The latest revision.
    revision: Arc<watch::Sender<usize>>,
    /// Never answers.
    silent: bool,
}

#[derive(Default)]
struct FakeState {
    objects: BTreeMap<(String, String), Value>,
    /// Every change: path and event. Revision 1 is before the first.
    log: Vec<(String, Value)>,
}

impl FakeApi {
    pub fn new() -> Self {
        FakeApi { state: Arc::default(), revision: Arc::new(watch::Sender::new(1)), silent: false }
    }

    /// One that takes requests and never answers.
    pub fn silent() -> Self {
        FakeApi { silent: true, ..Self::new() }
    }

    /// Create or replace an object of the kind that `path` lists.
    pub fn put(&self, path: &str, object: Value) {
        let mut state = self.state.lock();
        let name = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
        let known = state.objects.contains_key(&(path.to_owned(), name.clone()));
        let object = self.log(&mut state, path, if known { "MODIFIED" } else { "ADDED" }, object);
        state.objects.insert((path.to_owned(), name), object);
    }

    /// Remove an object without namespace.
    pub fn delete(&self, path: &str, name: &str) {
        let mut state = self.state.lock();
        let key = (path.to_owned(), format!("{}/{}", Value::Null, json!(name)));
        let object = state.objects.remove(&key).unwrap();
        self.log(&mut state, path, "DELETED", object);
    }

    fn log(&self, state: &mut FakeState, path: &str, kind: &str, mut object: Value) -> Value {
        let revision = state.log.len() + 2;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.log.push((path.to_owned(), json!({ "type": kind, "object": object })));
        self.revision.send_replace(revision);
        object
    }

    /// All objects of the kind that `path` lists.
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.state.lock().objects.iter().filter(|((p, _), _)| *p == path).map(|(_, object)| object.clone()).collect()
    }

    /// Lines of a watch from a revision on.
    fn lines(&self, path: String, from: usize) -> impl futures::Stream<Item = io::Result<String>> + use<> {
        let state = (self.clone(), self.revision.subscribe(), from - 1);
        futures::stream::unfold(state, move |(api, mut revision, mut next)| {
            let path = path.clone();
            async move {
                loop {
                    let entry = api.state.lock().log.get(next).cloned();
                    match entry {
                        Some((of, event)) => {
                            next += 1;
                            if of == path {
                                return Some((Ok(format!("{event}\n")), (api, revision, next)));
                            }
                        }
                        None => revision.changed().await.ok()?,
                    }
                }
            }
        })
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(Response::new(api.answer(request).await)) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Body {
        if self.silent {
            std::future::pending::<()>().await;
        }
        let (path, method) = (request.uri().path().to_owned(), request.method().clone());
        let query = request.uri().query().unwrap_or_default();
        if query.contains("watch=true") {
            let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok());
            return Body::from_stream(self.lines(path, from.unwrap()));
        }
        if method == Method::GET {
            let revision = (self.state.lock().log.len() + 1).to_string();
            return Body::from(
                json!({ "metadata": { "resourceVersion": revision }, "items": self.list(&path) }).to_string(),
            );
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let (path, object) = match method {
            Method::PATCH => self.merged(&path, &body),
            _ => (path, body),
        };
        self.put(&path, object.clone());
        Body::from(object.to_string())
    }

    /// What a patch of annotations makes of the object.
    fn merged(&self, path: &str, patch: &Value) -> (String, Value) {
        let (path, name) = path.rsplit_once('/').unwrap();
        let mut object = self.list(path).into_iter().find(|o| o["metadata"]["name"] == name).unwrap();
        object["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
        (path.to_owned(), object)
    }
}

pub const SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub const NODES: &str = "/api/v1/nodes";
pub const EVENTS: &str = "/api/v1/namespaces/default/events";

/// One run of the network part, on a thread of its own in the node's namespace. It ends with [`Running::stop`].
pub struct Running {
    pub config: Config,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The configuration of a node called `name`, whose files are below `dir`.
pub fn config(name: &str, node_ip: &str, dir: &Path) -> Config {
    Config {
        node_name: name.into(),
        node_ip: node_ip.parse().unwrap(),
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
        overlay: Backend::Vxlan,
        cni_conf_dir: dir.join("net.d"),
        cni_bin_dir: dir.join("bin"),
    }
}

impl Running {
    /// Returns when pods can be connected (at once without pod network of ours).
    pub fn start(api: &FakeApi, node: &Namespace, config: Config) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (path, api, inner) = (node.path(), api.clone(), config.clone());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let group = Group::root();
                let caches = Caches::new(api.client(), group.clone());
                run(inner, api.client(), caches, group.clone()).await.unwrap();
                let _ = stopped.await;
                group.join(LONG).await.unwrap();
            });
            Ok(())
        };
        let thread = crate::task::thread("node", move || netns::within(&path, work).unwrap()).unwrap();
        let (conflist, socket) = (config.cni_conf_dir.join(CONFLIST), config.run_dir.join(SOCKET));
        if config.overlay != Backend::None {
            until("the runtime is told", || conflist.exists() && UnixStream::connect(&socket).is_ok());
        }
        Running { config, stop, thread }
    }

    pub fn stop(self) -> Config {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
        self.config
    }

    /// What the plugin does, with the configuration that the runtime would give it.
    pub fn cni(&self, command: &str, id: &str, netns: &Path, ports: Value) -> Result<Value, Value> {
        let conflist: Value =
            serde_json::from_slice(&std::fs::read(self.config.cni_conf_dir.join(CONFLIST)).unwrap()).unwrap();
        let mut conf = conflist["plugins"][0].clone();
        conf["cniVersion"] = conflist["cniVersion"].clone();
        conf["runtimeConfig"] = json!({ "portMappings": ports });
        let request = json!({ "command": command, "container_id": id, "netns": netns, "ifname": "eth0",
            "args": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web", "config": conf });
        let mut stream = UnixStream::connect(self.config.run_dir.join(SOCKET)).unwrap();
        stream.write_all(request.to_string().as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        match answer.get("failed") {
            Some(failure) => Err(failure.clone()),
            None => Ok(answer["done"].clone()),
        }
    }

    /// A connected pod and its address.
    pub fn pod(&self, id: &str) -> (Namespace, String) {
        let pod = Namespace::new();
        let made = self.cni("ADD", id, &pod.path(), json!([])).unwrap();
        let address = made["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
        (pod, address)
    }
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn service(name: &str, cluster_ip: &str) -> Value {
    json!({ "metadata": { "namespace": "default", "name": name },
        "spec": { "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{ "port": 80 }] } })
}

/// Endpoints "address@node" at port 8080.
pub fn slice(service: &str, endpoints: &[&str]) -> Value {
    let endpoint = |text: &&str| {
        let (address, node) = text.split_once('@').unwrap();
        json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": true } })
    };
    json!({ "metadata": { "namespace": "default", "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 8080 }],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() })
}

pub fn node(name: &str, address: &str, pods: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "podCIDR": pods, "podCIDRs": [pods] },
        "status": { "addresses": [{ "type": "InternalIP", "address": address }] } })
}
