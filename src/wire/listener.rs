//! The TLS listener: accepts connections, verifies client certificates, speaks HTTP/1.1 and HTTP/2 with upgrades, and
//! hands each request to a function.

use crate::client::Handler;
use crate::server::api::Nearby;
use crate::server::authn::PeerCertificate;
use crate::task::Group;
use anyhow::Context;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// A handshake that takes longer is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Request headers must arrive within this time (slow senders hold a connection otherwise).
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; when full, new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
/// Streams of one HTTP/2 connection at once (upstream's default is 100 since CVE-2023-44487; watches count).
const MAX_STREAMS: u32 = 250;
/// Bytes on their way on one HTTP/2 stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Silent HTTP/2 peers are asked for a sign of life, and dropped without one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
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
        let connections = group.clone();
        group.spawn_graceful("listener", async move {
            let acceptor = TlsAcceptor::from(tls);
            let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let accepted = tokio::select! {
                    () = connections.cancelled() => break,
                    accepted = accept(&self.tcp, &slots) => accepted,
                };
                let Some((stream, peer, slot)) = accepted else { continue };
                let (acceptor, handler, group) = (acceptor.clone(), handler.clone(), connections.clone());
                connections.spawn_graceful("connection", async move {
                    let _slot = slot;
                    if let Err(error) = connection(stream, peer, acceptor, handler, group).await {
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

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Handler,
    group: Group,
) -> anyhow::Result<()> {
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.context("TLS handshake")??;
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| PeerCertificate::from_der(chain.first()?));
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request.extensions_mut().insert(Peer(peer));
        if peer.ip().is_loopback() {
            request.extensions_mut().insert(Nearby);
        }
        let answer = handler(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(tls), service));
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(|error| anyhow::anyhow!("{error}")),
        () = group.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let ended = tokio::time::timeout(DRAIN, serving).await.context("requests still open at the end")?;
    ended.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Set in the request's extensions: where the client connected from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);
