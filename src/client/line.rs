//! One HTTP/2 connection to a server, used by everything in this process, and followed by another when it breaks or
//! when its certificate was renewed.

use super::https::{Connector, TokenSource, prepare};
use crate::wire::tunnel::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use arc_swap::ArcSwap;
use axum::body::Body;
use http::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tower::BoxError;

/// Silent connections are asked for a sign of life, so that a watch notices a dead server. A node must have gone over to
/// another server before its own is given up (40 s).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A line to a server. Clones share the connection.
#[derive(Clone)]
pub struct Line(Arc<Inner>);

struct Inner {
    connector: ArcSwap<Connector>,
    server: Uri,
    token: Option<TokenSource>,
    http2_only: bool,
    http: ArcSwap<Client<Connector, Body>>,
    rotated: watch::Sender<()>,
}

impl Line {
    /// Connects with the first request. `http2_only`: for kedge's own server, so that there never is a second
    /// connection while the protocol of the first is not known yet.
    pub(super) fn new(connector: Connector, server: Uri, token: Option<TokenSource>, http2_only: bool) -> Self {
        let http = ArcSwap::from_pointee(http(connector.clone(), http2_only));
        let (connector, rotated) = (ArcSwap::from_pointee(connector), watch::Sender::new(()));
        Line(Arc::new(Inner { connector, server, token, http2_only, http, rotated }))
    }

    /// Send one request; its path is below the server's.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        prepare(&mut request, &self.0.server, self.0.token.as_ref())?;
        let sent = self.0.http.load().request(request);
        Ok(sent.await?.map(Body::new))
    }

    /// The typed client on this line.
    pub fn client(&self, namespace: &str) -> kube::Client {
        let line = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let line = line.clone();
            async move { line.send(request.map(Body::new)).await }
        });
        kube::Client::new(service, namespace)
    }

    /// The server is also at these addresses: tried when it does not answer at the configured one.
    pub fn also_at(&self, addresses: Vec<std::net::SocketAddr>) {
        self.0.connector.load().elsewhere.set(addresses);
    }

    /// These addresses, and what they become.
    pub fn elsewhere(&self) -> watch::Receiver<Vec<std::net::SocketAddr>> {
        self.0.connector.load().elsewhere.follow()
    }

    /// A line as the same client, to the server at this address alone.
    pub fn to(&self, address: std::net::SocketAddr) -> Result<Line, http::Error> {
        let server = Uri::builder().scheme("https").authority(address.to_string()).path_and_query("/").build()?;
        let connector = self.0.connector.load().alone();
        Ok(Line::new(connector, server, self.0.token.clone(), self.0.http2_only))
    }

    /// From now on requests use a new connection; the present one ends with its last request.
    pub fn rotate(&self) {
        self.0.http.store(Arc::new(http(self.0.connector.load().as_ref().clone(), self.0.http2_only)));
        self.0.rotated.send_replace(());
    }

    /// The same with other certificates.
    pub(super) fn replace(&self, mut connector: Connector) {
        connector.elsewhere = self.0.connector.load().elsewhere.clone();
        self.0.connector.store(Arc::new(connector));
        self.rotate();
    }

    /// Changes with every rotation.
    pub fn rotations(&self) -> watch::Receiver<()> {
        self.0.rotated.subscribe()
    }
}

fn http(connector: Connector, http2_only: bool) -> Client<Connector, Body> {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).http2_only(http2_only);
    builder.http2_keep_alive_interval(PING_INTERVAL).http2_keep_alive_timeout(PING_TIMEOUT);
    builder.http2_initial_stream_window_size(STREAM_WINDOW_BYTES);
    builder.http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.build(connector)
}
