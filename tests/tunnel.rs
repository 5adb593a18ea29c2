//! An agent's end and the server's end over real TLS sockets.

use async_trait::async_trait;
use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kedge::agent::tunnel::{Addresses, run};
use kedge::client::{Handler, Line};
use kedge::pki::{Pki, PkiConfig, server_config_of};
use kedge::server::api::{Api, Parts};
use kedge::server::dial::Dialer;
use kedge::server::kubelet::{Identity, Kubelets};
use kedge::server::registry::Registry;
use kedge::server::security::Security;
use kedge::server::tunnel::endpoint;
use kedge::store::memory::Memory;
use kedge::task::Group;
use kedge::wire::listener::Listener;
use kedge::wire::tunnel::PATH;
use kedge::wire::upgrade::Answer;
use serde_json::json;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const NODE: &str = "far";

/// A server, and what an agent needs to call it.
struct World {
    dir: Arc<tempfile::TempDir>,
    pki: Pki,
    api: Arc<Api>,
    dialer: Dialer,
    address: SocketAddr,
    listening: Group,
    root: Group,
}

/// The agent's own addresses in these tests: its kubelet, and the loopback.
struct Loopback {
    kubelet: SocketAddr,
}

#[async_trait]
impl Addresses for Loopback {
    fn kubelet(&self) -> SocketAddr {
        self.kubelet
    }

    async fn is_ours(&self, address: IpAddr) -> bool {
        address == Ipv4Addr::LOCALHOST
    }
}

fn pki(dir: &std::path::Path, node: &str) -> Pki {
    let names = PkiConfig {
        node_name: node.into(),
        node_ips: vec![],
        service_ips: vec![],
        cluster_domain: "cluster.local".into(),
        tls_sans: vec![],
        life: kedge::pki::LEAF_LIFE,
    };
    Pki::load_or_create(dir, names).unwrap()
}

impl World {
    async fn new() -> Self {
        Self::of(Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Another server of the same cluster.
    async fn companion(&self) -> Self {
        Self::of(self.dir.clone()).await
    }

    async fn of(dir: Arc<tempfile::TempDir>) -> Self {
        let root = Group::root();
        let pki = pki(&dir.path().join("tls"), NODE);
        let registry = Registry::new(Memory::open());
        let security = Security::start(&registry, &pki, "cluster.local", "https://127.0.0.1", &root);
        security.synced().await;
        let dialer = Dialer::default();
        let mut parts = Parts::new(registry);
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        parts.endpoints.push((PATH, endpoint(dialer.tunnels().clone(), address)));
        security.install(&mut parts);
        let api = Api::new(parts);
        let listening = root.child();
        listener.serve(pki.server_config().unwrap(), handler(&api), &listening);
        World { dir, pki, api, dialer, address, listening, root }
    }

    /// A line with the node's certificate.
    fn line(&self) -> Line {
        let (certificate, key) = self.pki.kubelet_client();
        let text = format!(
            "current-context: c\nclusters: [{{name: c, cluster: {{server: 'https://{}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: u, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.address,
            self.pki.server_ca_file().display(),
            certificate.display(),
            key.display(),
        );
        let file = self.dir.path().join("node.yaml");
        std::fs::write(&file, text).unwrap();
        kedge::client::line(&file).unwrap()
    }

    /// An agent with this kubelet, its tunnel up.
    async fn agent(&self, kubelet: SocketAddr) -> Line {
        let line = self.line();
        let group = self.root.child();
        group.spawn("agent", run(line.clone(), Arc::new(Loopback { kubelet }), group.clone()));
        self.until_up().await;
        line
    }

    async fn until_up(&self) {
        within(async {
            while self.dialer.tunnels().states().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn until_down(&self) {
        within(async {
            while !self.dialer.tunnels().states().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

fn handler(api: &Arc<Api>) -> Handler {
    let api = api.clone();
    Arc::new(move |request| {
        let api = api.clone();
        Box::pin(async move { api.handle(request).await })
    })
}

/// A test that hangs fails.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("still not there")
}

/// Gives back what it gets, until its client ends.
async fn echo(group: &Group) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = group.clone();
    group.spawn("echo", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn("echo-connection", async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

/// Talks for ever, and never listens.
async fn talker(group: &Group) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = group.clone();
    group.spawn("talker", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn("talker-connection", async move { while stream.write_all(&[1; 8192]).await.is_ok() {} });
        }
    });
    port
}

/// There and back.
async fn round_trip(dialer: &Dialer, port: u16, data: Vec<u8>) {
    let stream = dialer.dial(NODE, "127.0.0.1", port).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut seen = Vec::new();
    let send = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(send, read.read_to_end(&mut seen));
    read.unwrap();
    assert!(seen == data, "{} bytes came back of {}", seen.len(), data.len());
}

/// Port 1 stands for what is not there.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 1).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_refusals() {
    let world = World::new().await;
    let echo = echo(&world.root).await;
    let _line = world.agent(nobody()).await;
    within(round_trip(&world.dialer, echo, vec![7; 300_000])).await;
    let state = world.dialer.tunnels().states().remove(0);
    assert_eq!((state.node.as_str(), state.opened), (NODE, 1));
    // What the agent cannot reach, it says.
    let refused = world.dialer.dial(NODE, "127.0.0.1", 1).await.err().unwrap().to_string();
    assert!(refused.starts_with("dial tcp 127.0.0.1:1: Connection refused"), "{refused}");
    // What is none of the agent's is not dialed by it, but by the server itself.
    let direct = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = direct.local_addr().unwrap().port();
    let (stream, _) = tokio::join!(world.dialer.dial(NODE, "127.0.0.2", port), direct.accept());
    stream.unwrap();
    assert_eq!(world.dialer.tunnels().states()[0].opened, 1);
    // Streams that have ended are given back.
    within(async {
        while world.dialer.tunnels().states()[0].streams > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_is_verified_through_the_tunnel() {
    let world = World::new().await;
    let other = tempfile::tempdir().unwrap();
    let stranger = pki(other.path(), NODE);
    let hello: Handler = Arc::new(|request: Request<Body>| {
        Box::pin(async move { Response::new(Body::from(format!("hello {}", request.uri().path()))) })
    });
    let mut kubelets = Vec::new();
    for pki in [&world.pki, &stranger] {
        let tls = server_config_of(pki.kubelet_serving(), world.pki.client_ca().pem()).unwrap();
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        kubelets.push(listener.address().unwrap());
        listener.serve(tls, hello.clone(), &world.root);
    }
    // Where the node says it is, nobody can be reached (TEST-NET-1, RFC 5737).
    let node = json!({"metadata": {"name": NODE}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.1"}]}});
    let (certificate, key) = world.pki.apiserver_to_kubelet();
    let identity = Identity { certificate, key, server_ca: world.pki.server_ca_file() };
    let server = Kubelets::new(identity, world.dialer.clone(), world.root.clone());
    let headers = http::HeaderMap::new();
    let ask = || server.request(&node, Method::GET, "/pods", &headers, Body::empty());

    let _line = world.agent(kubelets[0]).await;
    let Answer::Plain(answer) = within(ask()).await.unwrap() else { panic!("no upgrade was asked for") };
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello /pods");

    let _line = world.agent(kubelets[1]).await;
    within(async {
        // Both agents have the name; the later one must have taken over.
        loop {
            match ask().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(status) => break assert!(status.message.contains("invalid peer certificate"), "{status}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_hold_up_nobody() {
    let world = World::new().await;
    let (echo, talker) = (echo(&world.root).await, talker(&world.root).await);
    let line = world.agent(nobody()).await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        // Full in the direction of the server (nobody reads), and of the agent (the target does not).
        let mut stream = world.dialer.dial(NODE, "127.0.0.1", talker).await.unwrap();
        let full = async {
            loop {
                let write = stream.write_all(&[2; 65536]);
                if tokio::time::timeout(Duration::from_millis(300), write).await.is_err() {
                    break;
                }
            }
        };
        within(full).await;
        stalled.push(stream);
    }
    let flows = (0..50).map(|i| round_trip(&world.dialer, echo, vec![i; 200_000]));
    let requests = async {
        for _ in 0..50 {
            // The node's own object, which is not there: an answer all the same.
            let request = Request::builder().uri(format!("/api/v1/nodes/{NODE}")).body(Body::empty()).unwrap();
            assert_eq!(line.send(request).await.unwrap().status().as_u16(), 404);
        }
    };
    within(async { tokio::join!(futures::future::join_all(flows), requests) }).await;
    assert_eq!(stalled.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_back_when_the_server_does() {
    let world = World::new().await;
    let echo = echo(&world.root).await;
    let _line = world.agent(nobody()).await;
    let mut open = world.dialer.dial(NODE, "127.0.0.1", echo).await.unwrap();
    open.write_all(b"x").await.unwrap();
    let mut byte = [0];
    open.read_exact(&mut byte).await.unwrap();
    world.listening.join(Duration::from_secs(20)).await.unwrap();
    within(world.until_down()).await;
    // An open stream ends with an error, not as if all had been said.
    assert!(within(open.read(&mut byte)).await.is_err());
    let listener = Listener::bind(world.address).await.unwrap();
    listener.serve(world.pki.server_config().unwrap(), handler(&world.api), &world.root);
    world.until_up().await;
    within(round_trip(&world.dialer, echo, vec![3; 1000])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_has_a_tunnel() {
    let world = World::new().await;
    let companion = world.companion().await;
    let echo = echo(&companion.root).await;
    let line = world.agent(nobody()).await;
    // One more is named that cannot be reached: it costs nothing else.
    line.also_at(vec![world.address, companion.address, nobody()]);
    within(companion.until_up()).await;
    for dialer in [&world.dialer, &companion.dialer] {
        within(round_trip(dialer, echo, vec![5; 1000])).await;
    }
    let mut open = companion.dialer.dial(NODE, "127.0.0.1", echo).await.unwrap();
    let before = companion.dialer.tunnels().states().remove(0);

    // The server at the end of the line is lost: the line goes over to the other, and takes the tunnel there over.
    world.listening.join(Duration::from_secs(20)).await.unwrap();
    within(world.until_down()).await;
    within(async {
        while companion.dialer.tunnels().states().first().is_none_or(|state| state.address == before.address) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    open.write_all(b"z").await.unwrap();
    let mut byte = [0];
    within(open.read_exact(&mut byte)).await.unwrap();
    within(round_trip(&companion.dialer, echo, vec![6; 1000])).await;
    assert_eq!(companion.dialer.tunnels().states().len(), 1);

    // It comes back: it has a tunnel again, while the line stays where it is.
    let listener = Listener::bind(world.address).await.unwrap();
    listener.serve(world.pki.server_config().unwrap(), handler(&world.api), &world.root);
    within(world.until_up()).await;
    within(round_trip(&world.dialer, echo, vec![7; 1000])).await;
    within(round_trip(&companion.dialer, echo, vec![8; 1000])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_moves_the_tunnel_without_a_cut() {
    let world = World::new().await;
    let echo = echo(&world.root).await;
    let line = world.agent(nobody()).await;
    let before = world.dialer.tunnels().states().remove(0);
    let mut open = world.dialer.dial(NODE, "127.0.0.1", echo).await.unwrap();
    line.rotate();
    within(async {
        loop {
            let state = world.dialer.tunnels().states().remove(0);
            if state.address != before.address {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The stream of the old connection goes on, new ones use the new connection.
    open.write_all(b"y").await.unwrap();
    let mut byte = [0];
    open.read_exact(&mut byte).await.unwrap();
    within(round_trip(&world.dialer, echo, vec![4; 1000])).await;
    assert_eq!(world.dialer.tunnels().states()[0].streams, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_gets_in() {
    let world = World::new().await;
    let line = world.line();
    let ask = |method: Method, path: String| {
        let line = line.clone();
        async move {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            line.send(request).await.unwrap().status().as_u16()
        }
    };
    assert_eq!(ask(Method::POST, format!("{PATH}/0123")).await, 404, "a stream nobody asked for");
    assert_eq!(ask(Method::GET, PATH.to_owned()).await, 403, "other nodes' tunnels are not a node's business");
    let admin = world.api.local(kedge::server::request::UserInfo::authenticated("admin", &["system:masters"]));
    let post = Request::builder().method("POST").uri(PATH).body(Body::empty()).unwrap();
    assert_eq!(admin(post).await.status().as_u16(), 403, "an administrator is no node");
    let get = Request::builder().uri(PATH).body(Body::empty()).unwrap();
    let text = admin(get).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, r#"{"tunnels":[]}"#);
}
