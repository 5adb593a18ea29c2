//! The agent's end of the tunnel ([`crate::wire::tunnel`]): asks every server for one again and again, and dials what
//! the server asks for, which is this node's own and nothing else: the tunnel is no open relay.

use super::context::Agent;
use crate::client::Line;
use crate::task::Group;
use crate::wire::tunnel::{BodyStream, MAX_STREAMS, Open, PATH, Refusal, SERVER, Target};
use anyhow::{Context, bail};
use async_trait::async_trait;
use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use tracing::{debug, info};

/// First wait before another try; it doubles up to the longest. Each is shortened by chance, so that many agents do
/// not come back at the same moment.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// A tunnel that lasted so long was a good one: the next try comes soon again.
const LASTED: Duration = Duration::from_secs(30);
/// The server waits 10 s in all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Tunnels beside the main one. When there are more servers, the others reach this node directly or not at all.
const MAX_FURTHER_SERVERS: usize = 8;
/// Longest line of the server.
const MAX_LINE_BYTES: usize = 4096;
/// Bytes copied at once.
const COPY_BYTES: usize = 16 << 10;

/// What the server may reach through this agent.
#[async_trait]
pub trait Addresses: Send + Sync {
    /// The kubelet's API.
    fn kubelet(&self) -> SocketAddr;
    /// Whether an address belongs to this node, one of its pods, or a Service.
    async fn is_ours(&self, address: IpAddr) -> bool;
}

#[async_trait]
impl Addresses for Agent {
    fn kubelet(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.config.kubelet_port).into()
    }

    async fn is_ours(&self, address: IpAddr) -> bool {
        let text = address.to_string();
        let of_pod = || {
            let ips = |view: &super::pods::view::View| {
                view.status.pod_ips.iter().flatten().any(|ip| ip.ip == text) && view.sandbox.is_some()
            };
            self.views.all().iter().any(|view| ips(view))
        };
        if address == self.config.node_ip || of_pod() {
            return true;
        }
        let services = self.services().await;
        services.iter().any(|s| s.spec.iter().flat_map(|s| s.cluster_ips.iter().flatten()).any(|ip| *ip == text))
    }
}

/// Keep a tunnel to every server for as long as `group` runs: one on the line that everything else uses, and one on a
/// line of its own to each other server that the line knows of.
pub async fn run(line: Line, addresses: Arc<dyn Addresses>, group: Group) {
    let slots = Arc::new(Semaphore::new(MAX_STREAMS));
    let shared = Arc::new(Shared { addresses, slots, group: group.clone() });
    let (told, own) = watch::channel(None);
    let further = further(line.clone(), shared.clone(), own, group.child());
    tokio::join!(keep(Server::Main { line, told }, shared, group), further);
}

/// To which server a tunnel goes.
enum Server {
    /// The one at the other end of the line. Where that is, is told when it is known.
    Main {
        line: Line,
        told: watch::Sender<Option<SocketAddr>>,
    },
    Further {
        main: Line,
        address: SocketAddr,
    },
}

impl Server {
    fn main(&self) -> &Line {
        match self {
            Server::Main { line, .. } => line,
            Server::Further { main, .. } => main,
        }
    }

    /// The line for the next tunnel.
    fn line(&self) -> anyhow::Result<Line> {
        match self {
            Server::Main { line, .. } => Ok(line.clone()),
            Server::Further { main, address } => Ok(main.to(*address)?),
        }
    }

    fn connected(&self, to: Option<SocketAddr>) {
        if let Server::Main { told, .. } = self {
            told.send_replace(to);
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Server::Main { .. } => f.write_str("the server"),
            Server::Further { address, .. } => write!(f, "the server at {address}"),
        }
    }
}

/// Keep the tunnels to the servers that the line knows of, but for the one at its end.
async fn further(line: Line, shared: Arc<Shared>, mut own: watch::Receiver<Option<SocketAddr>>, group: Group) {
    let mut published = line.elsewhere();
    let mut kept: HashMap<SocketAddr, Group> = HashMap::new();
    loop {
        let wanted = wanted(&published.borrow_and_update(), *own.borrow_and_update());
        kept.retain(|address, tunnel| {
            let stays = wanted.contains(address);
            if !stays {
                tunnel.cancel();
            }
            stays
        });
        for address in wanted {
            kept.entry(address).or_insert_with(|| {
                let (tunnel, server) = (group.child(), Server::Further { main: line.clone(), address });
                tunnel.spawn("tunnel", keep(server, shared.clone(), tunnel.clone()));
                tunnel
            });
        }
        let changed = tokio::select! {
            changed = published.changed() => changed,
            changed = own.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Servers that need a tunnel of their own. None while it is not known which one is `own`, at the end of the line.
fn wanted(published: &[SocketAddr], own: Option<SocketAddr>) -> Vec<SocketAddr> {
    let Some(own) = own else { return Vec::new() };
    published.iter().copied().filter(|address| *address != own).take(MAX_FURTHER_SERVERS).collect()
}

/// Keep one tunnel, until `group` ends. Its streams do not end with it.
async fn keep(server: Server, shared: Arc<Shared>, group: Group) {
    let mut rotated = server.main().rotations();
    let mut backoff = Backoff::default();
    loop {
        let (serving, asks) = match open(&server, &shared).await {
            Ok(open) => open,
            Err(error) => {
                backoff.failed(&server, &error);
                tokio::time::sleep(backoff.next()).await;
                continue;
            }
        };
        info!("the tunnel to {server} is up");
        let since = Instant::now();
        let (ended, end) = oneshot::channel();
        // A task of its own: when the next tunnel is up, the server ends this one after its last line.
        group.spawn("tunnel", async move {
            let _ = ended.send(serving.serve(asks).await);
        });
        tokio::select! {
            end = end => {
                let why = end.unwrap_or_else(|_| Err(anyhow::anyhow!("its task ended")));
                info!(error = why.err().map(|e| format!("{e:#}")), "the tunnel to {server} has ended");
                if since.elapsed() >= LASTED {
                    backoff = Backoff::default();
                }
                tokio::time::sleep(backoff.next()).await;
            }
            changed = rotated.changed() => {
                if changed.is_err() {
                    return;
                }
                debug!("another tunnel on the new connection");
            }
        }
    }
}

/// Open a tunnel to a server.
async fn open(server: &Server, shared: &Arc<Shared>) -> anyhow::Result<(Arc<Serving>, Asks)> {
    let line = server.line()?;
    let (own, asks) = ask(&line).await?;
    server.connected(own);
    Ok((Arc::new(Serving { line, shared: shared.clone() }), asks))
}

/// How long to wait before the next try.
#[derive(Default)]
struct Backoff {
    tries: u32,
    said: String,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let full = FIRST_BACKOFF.saturating_mul(1 << self.tries.min(10)).min(LONGEST_BACKOFF);
        self.tries += 1;
        full.mul_f64(rand::random_range(0.5..1.0))
    }

    /// Say why, once.
    fn failed(&mut self, server: &Server, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if text != self.said {
            info!(error = text, "no tunnel to {server} yet; logs, exec and proxies to this node may not work there");
            self.said = text;
        }
    }
}

type Asks =
    FramedRead<StreamReader<futures::stream::BoxStream<'static, io::Result<bytes::Bytes>>, bytes::Bytes>, LinesCodec>;

/// Ask for a tunnel; where the server says that it is, and its lines.
async fn ask(line: &Line) -> anyhow::Result<(Option<SocketAddr>, Asks)> {
    let response = send(line, Method::POST, PATH, Body::empty()).await?;
    let own = response.headers().get(SERVER).and_then(|own| own.to_str().ok()?.parse().ok());
    let pieces = response.into_body().into_data_stream().map(|p| p.map_err(io::Error::other)).boxed();
    Ok((own, FramedRead::new(StreamReader::new(pieces), LinesCodec::new_with_max_length(MAX_LINE_BYTES))))
}

/// One request; anything but success is an error that shows what the server said.
async fn send(line: &Line, method: Method, path: &str, body: Body) -> anyhow::Result<Response<Body>> {
    let request = Request::builder().method(method).uri(path).body(body)?;
    let response = line.send(request).await.map_err(|e| anyhow::anyhow!(e)).context("asking the server")?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let text = Limited::new(response.into_body(), MAX_LINE_BYTES).collect().await;
    let text = text.map(|t| t.to_bytes()).unwrap_or_default();
    bail!("the server answered {status}: {}", String::from_utf8_lossy(&text));
}

/// What all streams share.
struct Shared {
    addresses: Arc<dyn Addresses>,
    slots: Arc<Semaphore>,
    group: Group,
}

/// What a tunnel's streams share.
struct Serving {
    line: Line,
    shared: Arc<Shared>,
}

impl Serving {
    /// Dial whatever the server asks for, until it ends the tunnel.
    async fn serve(self: &Arc<Self>, mut asks: Asks) -> anyhow::Result<()> {
        while let Some(line) = asks.next().await {
            let open: Open = serde_json::from_str(&line?).context("a line of the server")?;
            let serving = self.clone();
            self.shared.group.spawn("tunnel-stream", async move {
                let id = open.id.clone();
                if let Err(error) = serving.stream(open).await {
                    debug!(id, error = format!("{error:#}"), "a stream of the tunnel ended");
                }
            });
        }
        Ok(())
    }

    async fn stream(&self, open: Open) -> anyhow::Result<()> {
        let path = format!("{PATH}/{}", open.id);
        let dialed = match self.shared.slots.try_acquire() {
            Ok(slot) => self.dial(&open.target).await.map(|stream| (stream, slot)),
            Err(_) => Err(Refusal { foreign: false, message: "too many streams on this node".to_owned() }),
        };
        let (mut near, _slot) = match dialed {
            Ok(dialed) => dialed,
            Err(refusal) => {
                debug!(target = ?open.target, why = refusal.message, "not dialed for the server");
                return send(&self.line, Method::DELETE, &path, serde_json::to_vec(&refusal)?.into()).await.map(drop);
            }
        };
        let (half, body) = BodyStream::half();
        let response = send(&self.line, Method::POST, &path, body).await?;
        let mut far = half.with(response.into_body());
        tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BYTES, COPY_BYTES).await?;
        Ok(())
    }

    async fn dial(&self, target: &Target) -> Result<TcpStream, Refusal> {
        let address: SocketAddr = match *target {
            Target::Kubelet => self.shared.addresses.kubelet(),
            Target::Tcp { host, port } if self.shared.addresses.is_ours(host).await => (host, port).into(),
            Target::Tcp { host, .. } => {
                return Err(Refusal { foreign: true, message: format!("{host} is no address of this node") });
            }
        };
        let failed = |message: String| Refusal { foreign: false, message };
        let dialed = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await;
        let stream = dialed.map_err(|_| failed("i/o timeout".to_owned()))?.map_err(|e| failed(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_server_gets_a_tunnel_of_its_own() {
        let address = |n: usize| SocketAddr::from(([192, 0, 2, n as u8], 6443));
        let servers: Vec<SocketAddr> = (1..=3).map(address).collect();
        assert_eq!(wanted(&servers, Some(address(2))), [address(1), address(3)]);
        assert_eq!(wanted(&servers[..1], Some(address(1))), []);
        assert_eq!(wanted(&servers, None), [], "an old server does not say");
        let many: Vec<SocketAddr> = (1..=20).map(address).collect();
        assert_eq!(wanted(&many, Some(address(1))).len(), MAX_FURTHER_SERVERS);
    }
}
