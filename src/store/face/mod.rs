//! etcd's API v3 on the store: for `etcdctl`, backup tools, and any client of etcd. The one place here that speaks HTTP.
//!
//! `kv.rs`, `range.rs`, `range_stream.rs`, `watch.rs`, `lease.rs`, `maintenance.rs`: the services. `lock.rs`,
//! `election.rs`, on `queue.rs`: those of etcd that are made of the others. `answer.rs`: errors in etcd's words.
//! `refine.rs`: sorting and filters. `snapshot.rs`, `bolt.rs`, `form.rs`: etcd's file format. `web.rs`:
//! what is asked by plain HTTP.

mod answer;
mod bolt;
mod election;
mod form;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod queue;
mod range;
mod range_stream;
mod refine;
mod snapshot;
mod watch;
mod web;

use super::proto::Empty;
use super::{MAX_TXN_BYTES, Store};
use crate::task;
use axum::body::Body;
use futures::future::{BoxFuture, ready};
use futures::{FutureExt, Stream, TryFutureExt, TryStreamExt};
use http::{Request, Response, header};
use prost::Message;
use queue::told;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

/// The version of etcd whose API this is; clients look here for what they may use.
pub const VERSION: &str = "3.5.21";

/// etcd's default for [`Face::progress_interval`].
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// Longest request: what a transaction may write, and the rest of its message.
const REQUEST_BYTES: usize = MAX_TXN_BYTES + (512 << 10);

/// Messages that a client sends on one stream.
type Incoming<T> = Streaming<T>;

type HttpResponse = Response<Body>;

/// The store as etcd.
pub struct Face {
    pub store: Arc<dyn Store>,
    /// Name of the one member, and where it listens.
    pub name: String,
    pub url: String,
    /// How often a watch that asked for it and has had no event hears how far it is.
    pub progress_interval: Duration,
    pub group: task::Group,
}

impl Face {
    /// Answer a request, gRPC or other. Fits [`crate::client::Handler`].
    pub fn handle(self: Arc<Self>, request: Request<Body>) -> BoxFuture<'static, HttpResponse> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc { self.call(request) } else { ready(web::answer(&self, &request)).boxed() }
    }

    /// The table of methods.
    fn call(self: Arc<Self>, request: Request<Body>) -> BoxFuture<'static, HttpResponse> {
        let (face, store) = (self.clone(), self.store.clone());
        let path = request.uri().path().to_owned();
        let Some((service, method)) = path.strip_prefix("/etcdserverpb.").and_then(|path| path.split_once('/')) else {
            return self.call_queue(request, &path);
        };
        match (service, method) {
            ("KV", "Range") => range::answer(store, request).boxed(),
            ("KV", "RangeStream") => {
                stream(request, move |asked| async move { range_stream::range_stream(store, &asked) })
            }
            ("KV", "Put") => unary(request, move |asked| async move { kv::put(&*store, asked).await }),
            ("KV", "DeleteRange") => unary(request, move |asked| async move { kv::delete_range(&*store, asked).await }),
            ("KV", "Txn") => unary(request, move |asked| async move { kv::txn(&*store, asked).await }),
            ("KV", "Compact") => unary(request, move |asked| async move { kv::compact(&*store, asked).await }),
            ("Watch", "Watch") => streams(request, move |asked| async move { Ok(watch::watch(&face, asked)) }),
            ("Lease", "LeaseGrant") => unary(request, move |asked| async move { lease::grant(&*store, asked).await }),
            ("Lease", "LeaseRevoke") => unary(request, move |asked| async move { lease::revoke(&*store, asked).await }),
            ("Lease", "LeaseKeepAlive") => {
                streams(request, move |asked| async move { Ok(lease::keep_alive(store, asked)) })
            }
            ("Lease", "LeaseTimeToLive") => {
                unary(request, move |asked| async move { lease::time_to_live(&*store, asked).await })
            }
            ("Lease", "LeaseLeases") => unary(request, move |_: Empty| async move { lease::leases(&*store).await }),
            ("Maintenance", "Status") => unary(request, move |_: Empty| async move { Ok(maintenance::status(&face)) }),
            ("Maintenance", "Alarm") => unary(request, move |asked| async move { maintenance::alarm(&*store, asked) }),
            ("Maintenance", "Defragment") => {
                unary(request, move |_: Empty| async move { maintenance::defragment(&*store).await })
            }
            ("Maintenance", "Hash") => unary(request, move |_: Empty| async move { maintenance::hash(&*store).await }),
            ("Maintenance", "HashKV") => {
                unary(request, move |asked| async move { maintenance::hash_kv(&*store, asked).await })
            }
            ("Maintenance", "Snapshot") => {
                stream(request, move |_: Empty| async move { maintenance::snapshot(&*store).await })
            }
            ("Maintenance", "MoveLeader") => {
                unary(request, move |asked| async move { maintenance::move_leader(asked) })
            }
            ("Maintenance", "Downgrade") => unary(request, move |asked| async move { maintenance::downgrade(asked) }),
            ("Cluster", "MemberList") => unary(request, move |_: Empty| async move { Ok(maintenance::members(&face)) }),
            ("Cluster", "MemberAdd") => unary(request, move |_: Empty| async move { maintenance::add_member() }),
            ("Cluster", "MemberRemove" | "MemberUpdate") => {
                unary(request, move |asked| async move { maintenance::change_member(asked) })
            }
            ("Cluster", "MemberPromote") => {
                unary(request, move |asked| async move { maintenance::promote_member(asked) })
            }
            ("Auth", "AuthStatus") => {
                unary(request, move |_: Empty| async move { Ok(maintenance::auth_status(&*store)) })
            }
            ("Auth", "AuthEnable") => unary(request, move |_: Empty| async move { maintenance::auth_enable() }),
            ("Auth", "AuthDisable") => {
                unary(request, move |_: Empty| async move { Ok(maintenance::auth_disable(&*store)) })
            }
            ("Auth", "UserList" | "RoleList") => {
                unary(request, move |_: Empty| async move { Ok(maintenance::nobody(&*store)) })
            }
            ("Auth", "UserGet" | "UserDelete" | "UserChangePassword" | "UserGrantRole" | "UserRevokeRole") => {
                unary(request, move |_: Empty| async move { maintenance::no_user() })
            }
            ("Auth", "RoleGet" | "RoleDelete" | "RoleGrantPermission" | "RoleRevokePermission") => {
                unary(request, move |_: Empty| async move { maintenance::no_role() })
            }
            ("Auth", "Authenticate" | "UserAdd" | "RoleAdd") => {
                unary(request, move |_: Empty| async move { maintenance::not_enabled() })
            }
            _ => ready(unknown(&path)).boxed(),
        }
    }

    /// The table of methods of services Lock and Election.
    fn call_queue(self: Arc<Self>, request: Request<Body>, path: &str) -> BoxFuture<'static, HttpResponse> {
        let store = self.store.clone();
        match path {
            "/v3lockpb.Lock/Lock" => unary(request, move |asked| lock::lock(self, asked).map_err(told)),
            "/v3lockpb.Lock/Unlock" => {
                unary(request, move |asked| async move { lock::unlock(&*store, asked).await.map_err(told) })
            }
            "/v3electionpb.Election/Campaign" => {
                unary(request, move |asked| election::campaign(self, asked).map_err(told))
            }
            "/v3electionpb.Election/Proclaim" => {
                unary(request, move |asked| async move { election::proclaim(&*store, asked).await.map_err(told) })
            }
            "/v3electionpb.Election/Leader" => {
                unary(request, move |asked| async move { election::leader(&*store, asked).await.map_err(told) })
            }
            "/v3electionpb.Election/Observe" => {
                stream(request, move |asked| async move { Ok(election::observe(store, asked).map_err(told)) })
            }
            "/v3electionpb.Election/Resign" => {
                unary(request, move |asked| async move { election::resign(&*store, asked).await.map_err(told) })
            }
            path => ready(unknown(path)).boxed(),
        }
    }
}

/// A method that is not etcd's, or newer than [`VERSION`].
fn unknown(path: &str) -> HttpResponse {
    let (parts, _) = Status::unimplemented(format!("unknown method {path}")).into_http::<()>().into_parts();
    Response::from_parts(parts, Body::empty())
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

/// A method as tonic wants it.
struct Method<F>(Option<F>);

impl<F, A, Q, Fut> tower::Service<tonic::Request<Q>> for Method<F>
where
    F: FnOnce(Q) -> Fut,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
    A: 'static,
{
    type Response = tonic::Response<A>;
    type Error = Status;
    type Future = Answer<A>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = self.0.take().map(|method| method(request.into_inner()));
        Box::pin(async move {
            match answer {
                Some(answer) => answer.await.map(tonic::Response::new),
                None => Err(Status::internal("called twice")),
            }
        })
    }
}

fn grpc<A, Q>() -> Grpc<ProstCodec<A, Q>>
where
    A: Message + 'static,
    Q: Message + Default + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(REQUEST_BYTES)
}

/// One request, one answer.
fn unary<F, Q, A, Fut>(request: Request<Body>, method: F) -> BoxFuture<'static, HttpResponse>
where
    F: FnOnce(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    async move { grpc::<A, Q>().unary(Method(Some(method)), request).await.map(Body::new) }.boxed()
}

/// One request, a stream of answers.
fn stream<F, Q, S, A, Fut>(request: Request<Body>, method: F) -> BoxFuture<'static, HttpResponse>
where
    F: FnOnce(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<S, Status>> + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    async move { grpc::<A, Q>().server_streaming(Method(Some(method)), request).await.map(Body::new) }.boxed()
}

/// A stream of requests, a stream of answers.
fn streams<F, Q, S, A, Fut>(request: Request<Body>, method: F) -> BoxFuture<'static, HttpResponse>
where
    F: FnOnce(Incoming<Q>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<S, Status>> + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    async move { grpc::<A, Q>().streaming(Method(Some(method)), request).await.map(Body::new) }.boxed()
}
