//! The TLS listener: accepts connections, verifies client certificates, speaks HTTP/1.1 and HTTP/2 with upgrades, and
//! hands each request to a function.

use crate::client::Handler;
use crate::server::api::Nearby;
use crate::task::Group;
use crate::wire::peer::PeerCertificate;
use crate::wire::{socket, tunnel};
use anyhow::Context;
use axum::body::Body;
use http::header::{DATE, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// A handshake that takes longer is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long, and how much, a client that was refused is listened to.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
const REFUSED_BYTES: u64 = 64 << 10;
/// Request headers must arrive within this time (slow senders hold a connection otherwise).
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; when full, new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
/// Streams of one HTTP/2 connection at once (upstream's default is 100 since CVE-2023-44487; watches count).
const MAX_STREAMS: u32 = 250;
/// Bytes on their way on one HTTP/2 stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = tunnel::STREAM_WINDOW_BYTES;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Silent HTTP/2 peers are asked for a sign of life, and dropped without one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Organization in nodes' certificates.
const NODES: &str = "system:nodes";
/// How long open requests may take when the listener stops.
const DRAIN: Duration = Duration::from_secs(5);
/// After an error of `accept` (no descriptors left), wait before the next.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A bound socket, not yet serving.
pub struct Listener {
    tcp: TcpListener,
}

impl Listener {
    /// Bind; the error names the address.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Listener { tcp })
    }

    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.tcp.local_addr()?)
    }

    /// Serve until `group` is cancelled, then let open requests finish for a short time.
    pub fn serve(self, tls: Arc<rustls::ServerConfig>, handler: Handler, group: &Group) {
        self.run(Some(TlsAcceptor::from(tls)), handler, group);
    }

    /// The same without TLS: for loopback addresses, where the user asked for it.
    pub fn serve_plain(self, handler: Handler, group: &Group) {
        self.run(None, handler, group);
    }

    fn run(self, tls: Option<TlsAcceptor>, handler: Handler, group: &Group) {
        let connections = group.clone();
        group.spawn_graceful("listener", async move {
            let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let accepted = tokio::select! {
                    () = connections.cancelled() => break,
                    accepted = accept(&self.tcp, &slots) => accepted,
                };
                let Some((stream, peer, slot)) = accepted else { continue };
                let (tls, handler, group) = (tls.clone(), handler.clone(), connections.clone());
                connections.spawn_graceful("connection", async move {
                    let _slot = slot;
                    let ended = match tls {
                        Some(tls) => secure_connection(stream, peer, tls, handler, group).await,
                        None => plain_connection(stream, peer, handler, group).await,
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%peer, error = format!("{error:#}"), "connection ended");
                    }
                });
            }
        });
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(tcp: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, Slot)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match tcp.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            None
        }
    }
}

async fn secure_connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Handler,
    group: Group,
) -> anyhow::Result<()> {
    socket::tune(&stream).context("setting socket options")?;
    let handshake = acceptor.accept(stream).into_fallible();
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.context("TLS handshake")? {
        Ok(tls) => tls,
        Err((error, stream)) => {
            let _ = tokio::time::timeout(REFUSED_TIMEOUT, let_read(stream)).await;
            return Err(error.into());
        }
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| PeerCertificate::from_der(chain.first()?));
    connection(tls, peer, certificate, handler, group).await
}

/// Let a refused client read the alert that says why: closing while there is something unread from it would reset the
/// connection, and take the alert back.
async fn let_read(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSED_BYTES), &mut tokio::io::sink()).await.map(drop)
}

async fn plain_connection(stream: TcpStream, peer: SocketAddr, handler: Handler, group: Group) -> anyhow::Result<()> {
    socket::tune(&stream).context("setting socket options")?;
    connection(stream, peer, None, handler, group).await
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    certificate: Option<PeerCertificate>,
    handler: Handler,
    group: Group,
) -> anyhow::Result<()> {
    let limits = Limits::of(certificate.as_ref());
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request.extensions_mut().insert(Peer(peer));
        if peer.ip().is_loopback() {
            request.extensions_mut().insert(Nearby);
        }
        let answer = handler(request.map(Body::new));
        async move { Ok::<_, Infallible>(dated(answer.await)) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits.connection_window_bytes)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(|error| anyhow::anyhow!("{error}")),
        () = group.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let ended = tokio::time::timeout(DRAIN, serving).await.context("requests still open at the end")?;
    ended.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Hyper would write what the machine's clock says, and nodes that join compare it with theirs.
fn dated(mut answer: Response<Body>) -> Response<Body> {
    let date = crate::time::corrected().and_then(|now| HeaderValue::try_from(crate::time::http_date(now)).ok());
    if let Some(date) = date {
        answer.headers_mut().insert(DATE, date);
    }
    answer
}

/// What one HTTP/2 connection may take.
struct Limits {
    streams: u32,
    connection_window_bytes: u32,
}

impl Limits {
    /// Nodes have their tunnel's streams on the same connection (see [`tunnel`]); everybody else makes do with less.
    fn of(certificate: Option<&PeerCertificate>) -> Self {
        match certificate.is_some_and(|c| c.groups.iter().any(|g| g == NODES)) {
            true => {
                Limits { streams: tunnel::MAX_HTTP_STREAMS, connection_window_bytes: tunnel::CONNECTION_WINDOW_BYTES }
            }
            false => Limits { streams: MAX_STREAMS, connection_window_bytes: CONNECTION_WINDOW_BYTES },
        }
    }
}

/// Set in the request's extensions: where the client connected from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Pki, PkiConfig};
    use crate::server::api::{Api, Parts};
    use crate::server::registry::Registry;
    use crate::server::request::UserInfo;
    use crate::store::memory::Memory;
    use futures::TryStreamExt;
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};

    /// The typed client finds the same server over TLS (with the administrator's certificate) and in process.
    #[tokio::test]
    async fn both_transports_reach_the_same_server() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::root();
        let pki = Pki::load_or_create(
            &dir.path().join("tls"),
            PkiConfig {
                node_name: "n".into(),
                node_ips: vec![],
                service_ips: vec![],
                cluster_domain: "cluster.local".into(),
                tls_sans: vec![],
                life: crate::pki::LEAF_LIFE,
            },
        )
        .unwrap();
        let api = Api::new(Parts::new(Registry::new(Memory::open())));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("https://{}", listener.address().unwrap());
        let served = api.clone();
        let handler: Handler = Arc::new(move |request| {
            let api = served.clone();
            Box::pin(async move { api.handle(request).await })
        });
        listener.serve(pki.server_config().unwrap(), handler, &group);
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, pki.admin_kubeconfig(&url).unwrap()).unwrap();

        let remote = crate::client::https(&kubeconfig).unwrap();
        let admin = UserInfo::authenticated("component", &[UserInfo::MASTERS]);
        let local = crate::client::local(api.local(admin));
        let namespaces: kube::Api<Namespace> = kube::Api::all(remote.clone());
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("default".into());
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();

        let there: kube::Api<ConfigMap> = kube::Api::namespaced(remote, "default");
        let here: kube::Api<ConfigMap> = kube::Api::namespaced(local, "default");
        let mut watch = Box::pin(there.watch(&WatchParams::default(), "0").await.unwrap());
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".into());
        let made = here.create(&PostParams::default(), &map).await.unwrap();
        assert_eq!(there.get("a").await.unwrap(), made);
        assert_eq!(there.list(&ListParams::default()).await.unwrap().items.len(), 1);
        let event = watch.try_next().await.unwrap();
        assert!(
            matches!(&event, Some(WatchEvent::Added(found)) if found.metadata.name.as_deref() == Some("a")),
            "{event:?}"
        );
        let missing = there.get("none").await.unwrap_err();
        assert!(matches!(&missing, kube::Error::Api(status) if status.reason == "NotFound"), "{missing:?}");

        // Without a certificate nobody is known.
        let text = std::fs::read_to_string(&kubeconfig).unwrap();
        let bare: String = text.lines().filter(|l| !l.contains("client-")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&kubeconfig, bare).unwrap();
        let anonymous = crate::client::https(&kubeconfig).unwrap();
        let refused = kube::Api::<Namespace>::all(anonymous).list(&ListParams::default()).await.unwrap_err();
        let message = refused.to_string();
        assert!(message.contains("system:anonymous") && message.contains("cannot list resource"), "{message}");
        api.shutdown();
        group.join(Duration::from_secs(10)).await.unwrap();
    }
}
