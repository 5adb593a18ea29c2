//! The API server as one function: [`Api::handle`]. The TLS listener and the in-process transport both call it.
//!
//! Outermost first: panics, audit id, request info, authentication, impersonation, authorization, deadline, verbs.

use crate::client::Handler;
use crate::server::admission::Plugin;
use crate::server::authn::{self, LocalIdentity, TokenAuthenticator, TokenIssuer};
use crate::server::authz::{self, Authorizer, Decision, Rules};
use crate::server::metrics::{Label, Metrics};
use crate::server::registry::Registry;
use crate::server::request::{Query, RequestInfo, UserInfo};
use crate::status::{Reason, Result, Status};
use crate::task::Group;
use async_trait::async_trait;
use axum::body::Body;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

mod body;
mod documents;
mod endpoint;
mod patches;
mod respond;
mod sockets;
mod verbs;

#[cfg(test)]
mod tests;

pub use body::read_object;
pub use endpoint::{endpoint, json_response};
pub use patches::Patch;
pub use respond::{Nearby, Wanted, add_warnings, answer_response, object_response, status_response};

/// A path outside the resource tree, served by another area (the issuer's keys, join endpoints). The request's
/// extensions hold who asks (`Arc<UserInfo>`).
pub type Endpoint = Arc<dyn Fn(Arc<Api>, Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A request that is neither watch nor stream must end within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Short requests from the network worked on at once; more are refused with 429 (upstream's 400 + 200).
const MAX_IN_FLIGHT: usize = 600;

/// What an API server is made of.
pub struct Parts {
    pub registry: Arc<Registry>,
    /// Asked in order for a bearer token's user.
    pub tokens: Vec<Arc<dyn TokenAuthenticator>>,
    /// The chain: the first that allows or denies decides; nobody has an opinion: 403.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// In upstream's order; usually [`crate::server::admission::PLUGINS`].
    pub plugins: Vec<&'static dyn Plugin>,
    /// Behind `serviceaccounts/token`.
    pub issuer: Option<Arc<dyn TokenIssuer>>,
    /// By path prefix on a segment boundary (`/openid/v1/jwks`); the longest match wins.
    pub endpoints: Vec<(&'static str, Endpoint)>,
    pub network: crate::server::allocation::Network,
    /// Behind pods' streams and the node proxy.
    pub kubelets: Option<Arc<crate::server::kubelet::Kubelets>>,
}

impl Parts {
    /// A server without any authenticator, authorizer, plugin: only in-process callers get in, and are refused.
    pub fn new(registry: Arc<Registry>) -> Self {
        Parts {
            registry,
            tokens: vec![],
            authorizers: vec![],
            plugins: vec![],
            issuer: None,
            endpoints: vec![],
            network: Default::default(),
            kubelets: None,
        }
    }
}

/// The API server.
pub struct Api {
    parts: Parts,
    metrics: Metrics,
    in_flight: Semaphore,
    stop: CancellationToken,
    ready: AtomicBool,
    /// Where streams run; there from [`Api::start`] on.
    group: OnceLock<Group>,
}

/// A request on its way in: parsed, authenticated, authorized.
pub struct Incoming {
    pub info: Arc<RequestInfo>,
    pub user: Arc<UserInfo>,
    pub query: Query,
    pub request: Request<Body>,
}

impl Api {
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Api {
            parts,
            metrics: Metrics::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            stop: CancellationToken::new(),
            ready: AtomicBool::new(false),
            group: OnceLock::new(),
        })
    }

    /// Do what has to be done in the background (expiry of Events), and begin to stop when `group` ends.
    pub fn start(self: &Arc<Self>, group: &Group) {
        crate::server::registry::expiry::start(self.parts.registry.clone(), group);
        let _ = self.group.set(group.clone());
        let (api, stopping) = (self.clone(), group.clone());
        group.spawn_graceful("api", async move {
            stopping.cancelled().await;
            api.shutdown();
        });
    }

    /// Everything that clients rely on is there: `/readyz` succeeds from now on.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.parts.registry
    }

    fn group(&self) -> Option<&Group> {
        self.group.get()
    }

    pub fn plugins(&self) -> &[&'static dyn Plugin] {
        &self.parts.plugins
    }

    pub fn tokens(&self) -> &[Arc<dyn TokenAuthenticator>] {
        &self.parts.tokens
    }

    pub fn issuer(&self) -> Option<&Arc<dyn TokenIssuer>> {
        self.parts.issuer.as_ref()
    }

    pub fn kubelets(&self) -> Option<&Arc<crate::server::kubelet::Kubelets>> {
        self.parts.kubelets.as_ref()
    }

    pub fn network(&self) -> &crate::server::allocation::Network {
        &self.parts.network
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Begin to stop: readiness fails, watches end. Requests in flight finish.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Answer one request. Never panics, never fails: errors are `Status` answers.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let info = Arc::new(RequestInfo::parse(request.method(), request.uri().path(), &query));
        let label = self.label(&info);
        let audit_id = audit_id(&request);
        let headers = request.headers().clone();
        let work = self.process(request, query, info);
        let mut response = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => status_response(&headers, &status),
            Err(_) => {
                tracing::error!(verb = label.verb, resource = label.resource, "a request panicked");
                let why = "This request caused apiserver to panic. Look in the logs for details.";
                status_response(&headers, &Status::new(Reason::InternalError, why))
            }
        };
        self.metrics.observe(label, response.status(), started.elapsed());
        let headers = response.headers_mut();
        headers.insert("audit-id", audit_id);
        headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        response
    }

    async fn process(
        self: &Arc<Self>,
        request: Request<Body>,
        query: Query,
        info: Arc<RequestInfo>,
    ) -> Result<Response<Body>> {
        let local = request.extensions().get::<LocalIdentity>().is_some();
        let user = authn::authenticate(request.extensions(), request.headers(), &self.parts.tokens).await?;
        let user = authn::impersonate(user, request.headers(), &**self).await?;
        self.require(&user, &info).await?;
        let incoming = Incoming { info, user: Arc::new(user), query, request };
        if incoming.info.is_long_running() {
            return sockets::route(self, incoming).await;
        }
        let _permit = match local {
            true => None,
            false => Some(self.in_flight.try_acquire().map_err(|_| too_many())?),
        };
        let work = self.route(incoming);
        tokio::time::timeout(REQUEST_TIMEOUT, work)
            .await
            .map_err(|_| Status::timeout("request did not complete within the allotted timeout", 0))?
    }

    /// The 403 of what nobody allows.
    pub async fn require(&self, user: &UserInfo, info: &RequestInfo) -> Result<()> {
        match self.authorize(user, info).await? {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(authz::forbidden(user, info, &reason)),
        }
    }

    /// Metric labels that clients cannot multiply.
    fn label(&self, info: &RequestInfo) -> Label {
        let kind =
            if info.is_resource { self.registry().kind(&info.group, &info.version, &info.resource) } else { None };
        let subresource = kind.and_then(|k| k.subresource(&info.subresource));
        Label {
            verb: Label::known_verb(&info.verb),
            group: kind.map_or("", |k| k.group),
            version: kind.map_or("", |k| k.version),
            resource: kind.map_or("", |k| k.plural),
            subresource: subresource.map_or("", |s| s.name),
        }
    }

    /// The API as an in-process component calls it: every request carries this identity and passes authorization and
    /// admission like any other.
    pub fn local(self: &Arc<Self>, user: UserInfo) -> Handler {
        let api = self.clone();
        let identity = LocalIdentity(user);
        Arc::new(move |mut request| {
            let api = api.clone();
            request.extensions_mut().insert(identity.clone());
            Box::pin(async move { api.handle(request).await })
        })
    }
}

fn too_many() -> Status {
    let details = crate::status::Details { retry_after_seconds: 1, ..Default::default() };
    Status::new(Reason::TooManyRequests, "Too many requests, please try again later.").with_details(details)
}

/// The request's audit id, or a new one.
fn audit_id(request: &Request<Body>) -> HeaderValue {
    let given = request.headers().get("audit-id").filter(|id| !id.is_empty() && id.len() <= 64);
    let fresh = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
    given.cloned().or_else(|| fresh().ok()).unwrap_or(HeaderValue::from_static(""))
}

/// The whole chain as one authorizer. Upstream's first link allows everything to `system:masters`.
#[async_trait]
impl Authorizer for Api {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Result<Decision> {
        if user.is_in(UserInfo::MASTERS) {
            return Ok(Decision::Allow { reason: String::new() });
        }
        let mut reasons = Vec::new();
        for authorizer in &self.parts.authorizers {
            match authorizer.authorize(user, request).await? {
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return Ok(decided),
            }
        }
        Ok(Decision::NoOpinion { reason: authz::join_reasons(reasons) })
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Result<Rules> {
        let mut all = Rules::default();
        if user.is_in(UserInfo::MASTERS) {
            let any = serde_json::json!(["*"]);
            all.resource.push(serde_json::json!({"verbs": any, "apiGroups": any, "resources": any}));
            all.non_resource.push(serde_json::json!({"verbs": any, "nonResourceURLs": any}));
        }
        for authorizer in &self.parts.authorizers {
            let rules = authorizer.rules(user, namespace).await?;
            all.resource.extend(rules.resource);
            all.non_resource.extend(rules.non_resource);
            all.incomplete |= rules.incomplete;
        }
        Ok(all)
    }
}
