//! Authentication and authorization, delegated to the API server (upstream's kubelet webhook mode).

use crate::status::{Result, Status};
use crate::wire::peer::PeerCertificate;
use http::{Method, Request};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an answer of the API server is believed.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Answers remembered at once; when full, all are forgotten.
const MAX_REMEMBERED: usize = 256;

/// Who asks, as the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

/// What a request shows of its sender.
enum Credential {
    Certificate(User),
    Token(String),
    None,
}

/// Who asks for what.
pub struct Caller {
    credential: Credential,
    verb: &'static str,
    subresource: &'static str,
}

impl Caller {
    pub fn of<B>(request: &Request<B>) -> Self {
        let (verb, subresource) = attributes(request.method(), request.uri().path());
        let certificate = request.extensions().get::<PeerCertificate>();
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let credential = match (certificate, header.and_then(|h| h.strip_prefix("Bearer "))) {
            (Some(certificate), _) => {
                let groups = certificate.groups.iter().cloned().chain(["system:authenticated".to_owned()]).collect();
                Credential::Certificate(User { name: certificate.user.clone(), groups })
            }
            (None, Some(token)) => Credential::Token(token.to_owned()),
            (None, None) => Credential::None,
        };
        Caller { credential, verb, subresource }
    }
}

/// Decides who may call this API.
pub struct Access {
    client: Client,
    node: String,
    allowed: Mutex<HashMap<(User, &'static str, &'static str), Instant>>,
}

impl Access {
    pub fn new(client: Client, node: &str) -> Self {
        Access { client, node: node.to_owned(), allowed: Mutex::default() }
    }

    /// 401 without a known identity, 403 without the right on `nodes/<subresource>`.
    pub async fn check(&self, caller: Caller) -> Result<()> {
        let Caller { credential, verb, subresource } = caller;
        let user = self.user(credential).await?;
        let question = (user.clone(), verb, subresource);
        if self.allowed.lock().get(&question).is_some_and(|at| at.elapsed() < REMEMBERED) {
            return Ok(());
        }
        if !self.may(&user, verb, subresource).await? {
            let why = format!("User {:?} cannot {verb} resource \"nodes/{subresource}\"", user.name);
            return Err(Status::forbidden("", "nodes", &self.node, why));
        }
        let mut allowed = self.allowed.lock();
        if allowed.len() >= MAX_REMEMBERED {
            allowed.clear();
        }
        allowed.insert(question, Instant::now());
        Ok(())
    }

    async fn user(&self, credential: Credential) -> Result<User> {
        let token = match credential {
            Credential::None => return Err(Status::unauthorized()),
            Credential::Certificate(user) => return Ok(user),
            Credential::Token(token) => token,
        };
        let spec = TokenReviewSpec { token, ..Default::default() };
        let review = TokenReview { spec, ..Default::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let status = answer.map_err(|e| unreachable_server(&e))?.status.unwrap_or_default();
        match status.user {
            Some(user) if status.authenticated == Some(true) => {
                Ok(User { name: user.username.unwrap_or_default(), groups: user.groups.unwrap_or_default() })
            }
            _ => Err(Status::unauthorized()),
        }
    }

    async fn may(&self, user: &User, verb: &str, subresource: &str) -> Result<bool> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node.clone()),
            ..Default::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            resource_attributes: Some(attributes),
            ..Default::default()
        };
        let review = SubjectAccessReview { spec, ..Default::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        Ok(answer.map_err(|e| unreachable_server(&e))?.status.is_some_and(|s| s.allowed))
    }
}

fn unreachable_server(error: &kube::Error) -> Status {
    Status::unavailable(format!("the API server cannot be asked who may: {error}"))
}

/// Verb and `nodes/` subresource of a request, as upstream's kubelet maps them.
fn attributes(method: &Method, path: &str) -> (&'static str, &'static str) {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::DELETE => "delete",
        Method::PATCH => "patch",
        _ => "get",
    };
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let subresource = match first {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        _ => "proxy",
    };
    (verb, subresource)
}
