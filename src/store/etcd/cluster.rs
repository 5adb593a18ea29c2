//! Calls to an etcd cluster: one connection per member, made when it is needed, and the next member when one fails.

use crate::store::Error;
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// A member that does not take a connection within this time is passed over, TLS included: one that is just starting, or
/// hangs, has its kernel take connections that it does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A silent connection is asked for a sign of life, and dropped without one.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// One attempt at a call. etcd itself gives up after 7 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call is tried again while no member can answer it, and the pause in between.
const RETRY_FOR: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longest answer: a range of everything.
const ANSWER_BYTES: usize = 1 << 30;

pub struct Cluster {
    members: Vec<Channel>,
    /// The member in use.
    current: AtomicUsize,
}

/// Whether a call may be made again when nobody knows if it was done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Always,
    /// Only if it was certainly not done.
    Unsent,
}

impl Cluster {
    /// `endpoints`: `https://…` with `tls`, or `http://…`. Nothing is connected yet.
    pub fn new(endpoints: &[String], tls: Option<Arc<ClientConfig>>) -> Result<Self, Error> {
        let members = endpoints.iter().map(|endpoint| member(endpoint, tls.clone())).collect::<Result<_, _>>()?;
        Ok(Cluster { members, current: AtomicUsize::new(0) })
    }

    /// One request, one answer.
    pub async fn call<Q, A>(&self, path: &'static str, request: Q, again: Again) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let deadline = tokio::time::Instant::now() + RETRY_FOR;
        loop {
            let number = self.current.load(Ordering::Relaxed);
            let attempt = async {
                let mut grpc = self.ready(number).await?;
                let codec = ProstCodec::<Q, A>::default();
                let answer = grpc.unary(Request::new(request.clone()), PathAndQuery::from_static(path), codec).await?;
                Ok(answer.into_inner())
            };
            let attempt = tokio::time::timeout(CALL_TIMEOUT, attempt).await;
            let status = match attempt.unwrap_or_else(|_| Err(Status::unavailable("no answer in time"))) {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let may = status.code() == Code::Unavailable && (again == Again::Always || was_not_sent(&status));
            if !may || tokio::time::Instant::now() >= deadline {
                return Err(explained(status));
            }
            self.pass_over(number);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// A stream of requests, a stream of answers, from one member.
    pub async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let number = self.current.load(Ordering::Relaxed);
        let open = async {
            let mut grpc = self.ready(number).await?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.streaming(Request::new(requests), PathAndQuery::from_static(path), codec).await
        };
        let opened = tokio::time::timeout(CALL_TIMEOUT, open).await;
        match opened.unwrap_or_else(|_| Err(Status::unavailable("no answer in time"))) {
            Ok(answers) => Ok(answers.into_inner()),
            Err(status) => {
                self.pass_over(number);
                Err(explained(status))
            }
        }
    }

    async fn ready(&self, number: usize) -> Result<Grpc<Channel>, Status> {
        let member = &self.members[number % self.members.len()];
        let mut grpc = Grpc::new(member.clone()).max_decoding_message_size(ANSWER_BYTES);
        match grpc.ready().await {
            Ok(()) => Ok(grpc),
            Err(error) => Err(unsent(&error)),
        }
    }

    /// Go on with the next member, unless somebody else has.
    fn pass_over(&self, number: usize) {
        let next = (number + 1) % self.members.len();
        let _ = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn unsent(error: &tonic::transport::Error) -> Status {
    Status::unavailable(format!("{NOT_CONNECTED}: {}", chain(error)))
}

const NOT_CONNECTED: &str = "cannot connect to etcd";

/// Whether a call has failed before anything of it was sent.
fn was_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    status.message().starts_with(NOT_CONNECTED)
}

/// With what is behind it: what failed on the way is told as "transport error" alone.
fn explained(status: Status) -> Status {
    match std::error::Error::source(&status) {
        Some(source) => {
            let (message, why) = (status.message(), chain(source));
            let text = if why.contains(message) { why } else { format!("{message}: {why}") };
            Status::new(status.code(), text)
        }
        None => status,
    }
}

/// An error with its causes. Some of them repeat theirs.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

fn member(endpoint: &str, tls: Option<Arc<ClientConfig>>) -> Result<Channel, Error> {
    let wrong =
        |why: &str| Error::Failed { step: "reading --datastore-endpoint", message: format!("{endpoint}: {why}") };
    let uri: Uri = endpoint.parse().map_err(|_| wrong("expected https://HOST:PORT"))?;
    let host = uri.host().ok_or_else(|| wrong("has no host"))?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let tls = match (uri.scheme_str(), tls) {
        (Some("http"), _) => None,
        (Some("https"), Some(tls)) => {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong("no valid name or address"))?;
            Some((TlsConnector::from(tls), name))
        }
        (Some("https"), None) => return Err(wrong("needs --datastore-cafile")),
        _ => return Err(wrong("expected https://HOST:PORT")),
    };
    // The scheme is for the connector, which decides on TLS by itself.
    let origin = format!("http://{}", uri.authority().map_or("", |authority| authority.as_str()));
    let channel = Endpoint::from_shared(origin)
        .map_err(|e| wrong(&e.to_string()))?
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connecting = connect(host.clone(), port, tls.clone());
            async {
                let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time");
                tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?
            }
        }));
    Ok(channel)
}

/// A connection, encrypted or not.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> std::io::Result<TokioIo<Box<dyn Stream>>> {
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
        None => Box::new(stream),
    };
    Ok(TokioIo::new(stream))
}
