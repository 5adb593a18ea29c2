//! The API server as one function: [`Api::handle`]. The TLS listener and the in-process transport both call it.

use crate::client::Handler;
use crate::server::admission::Plugin;
use crate::server::authn::{LocalIdentity, TokenAuthenticator, TokenIssuer};
use crate::server::authz::{Authorizer, Decision};
use crate::server::registry::Registry;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::Result;
use async_trait::async_trait;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::sync::Arc;

/// A path outside the resource tree, served by another area (discovery, OpenAPI, the issuer's keys).
pub type Endpoint = Arc<dyn Fn(Arc<Api>, Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

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
}

impl Parts {
    /// A server without any authenticator, authorizer, plugin: only in-process callers get in, and are refused.
    pub fn new(registry: Arc<Registry>) -> Self {
        Parts { registry, tokens: vec![], authorizers: vec![], plugins: vec![], issuer: None, endpoints: vec![] }
    }
}

/// The API server.
pub struct Api {
    parts: Parts,
}

impl Api {
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Api { parts })
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.parts.registry
    }

    /// Answer one request. Never panics, never fails: errors are `Status` answers.
    pub async fn handle(self: &Arc<Self>, _request: Request<Body>) -> Response<Body> {
        Response::new(Body::empty())
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

/// The whole chain as one authorizer.
#[async_trait]
impl Authorizer for Api {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Result<Decision> {
        let mut reasons = Vec::new();
        for authorizer in &self.parts.authorizers {
            match authorizer.authorize(user, request).await? {
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return Ok(decided),
            }
        }
        reasons.retain(|r| !r.is_empty());
        Ok(Decision::NoOpinion { reason: reasons.join(", ") })
    }
}
