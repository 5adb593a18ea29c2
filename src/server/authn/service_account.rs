//! Issues and verifies service-account tokens. A token bound to a pod, secret or node is void as soon as that object is
//! gone or another one has its name.

use super::token::{self, Claims, Private, Ref};
use super::{SERVICE_ACCOUNT_PREFIX, TokenAuthenticator, TokenIssuer, service_account_groups, service_account_user};
use crate::object::{Object, ObjectExt};
use crate::pki::{SigningKey, clock};
use crate::server::admission::Reader;
use crate::server::authn::request::CREDENTIAL_ID;
use crate::server::authz::graph::{Graph, deletion_time};
use crate::server::request::UserInfo;
use crate::status::{Result, Status};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Tokens whose signature was checked, kept by the digest of the token. When full, all are forgotten: checking one
/// again costs a tenth of a millisecond.
const VERIFIED_TOKENS: usize = 2048;
/// Clocks may differ, and deleted objects' tokens stay good, for this many seconds.
const LEEWAY: i64 = 60;
/// Life of a token when nothing is asked for, in seconds.
const DEFAULT_LIFE: i64 = 3600;
/// The life kubelets ask for by default: such a token is extended, and marked by `warnafter`.
const EXTENDED_REQUEST: i64 = 3607;
/// What they get: a year.
const EXTENDED_LIFE: i64 = 365 * 24 * 3600;
const MIN_LIFE: i64 = 600;
const MAX_LIFE: i64 = 1 << 32;

const EXTRA_PREFIX: &str = "authentication.kubernetes.io/";

/// Both directions of service-account tokens.
pub struct ServiceAccounts {
    key: Arc<SigningKey>,
    issuer: String,
    graph: Arc<Graph>,
    reader: Arc<dyn Reader>,
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl ServiceAccounts {
    /// `issuer` is also the API server's audience.
    pub fn new(key: Arc<SigningKey>, issuer: String, graph: Arc<Graph>, reader: Arc<dyn Reader>) -> Arc<Self> {
        Arc::new(ServiceAccounts { key, issuer, graph, reader, verified: Mutex::default() })
    }

    /// `https://kubernetes.default.svc.<domain>`
    pub fn issuer_of(cluster_domain: &str) -> String {
        format!("https://kubernetes.default.svc.{cluster_domain}")
    }

    /// The claims of a token with a good signature.
    fn open(&self, token: &str) -> Option<Arc<Claims>> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().ok()?;
        if let Some(claims) = self.verified.lock().get(&digest) {
            return Some(claims.clone());
        }
        let claims = Arc::new(token::open(token, &[self.key.public().clone()])?);
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_TOKENS {
            verified.clear();
        }
        verified.insert(digest, claims.clone());
        Some(claims)
    }

    /// Whether every object the token is bound to is still the same.
    async fn is_alive(&self, claims: &Claims, now: i64) -> Result<bool> {
        let private = &claims.kubernetes;
        let account = &private.serviceaccount;
        let namespace = &private.namespace;
        if !self.account_lives(namespace, account, now).await? {
            return Ok(false);
        }
        if let Some(secret) = &private.secret
            && !self.stored_lives("secrets", namespace, secret, now).await?
        {
            return Ok(false);
        }
        match (&private.pod, &private.node) {
            (Some(pod), _) => self.pod_lives(namespace, pod, now).await,
            (None, Some(node)) => self.stored_lives("nodes", "", node, now).await,
            (None, None) => Ok(true),
        }
    }

    async fn account_lives(&self, namespace: &str, account: &Ref, now: i64) -> Result<bool> {
        if self.graph.service_account_uid(namespace, &account.name).is_some_and(|uid| uid == account.uid) {
            return Ok(true);
        }
        // The index may be behind: only the store says no.
        self.stored_lives("serviceaccounts", namespace, account, now).await
    }

    async fn pod_lives(&self, namespace: &str, pod: &Ref, now: i64) -> Result<bool> {
        match self.graph.pod(namespace, &pod.name) {
            Some(facts) if facts.uid == pod.uid => Ok(facts.deletion.is_none_or(|at| now <= at + LEEWAY)),
            _ => self.stored_lives("pods", namespace, pod, now).await,
        }
    }

    async fn stored_lives(&self, resource: &str, namespace: &str, wanted: &Ref, now: i64) -> Result<bool> {
        let Some(object) = self.reader.get("", resource, namespace, &wanted.name).await? else { return Ok(false) };
        Ok(object.uid() == wanted.uid && deletion_time(&object).is_none_or(|at| now <= at + LEEWAY))
    }

    fn user(&self, claims: &Claims) -> UserInfo {
        let private = &claims.kubernetes;
        let mut user = service_account_user(&private.namespace, &private.serviceaccount.name);
        user.groups = service_account_groups(&private.namespace);
        user.uid = private.serviceaccount.uid.clone();
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(key.to_owned(), vec![value.to_owned()]);
            }
        };
        if let Some(pod) = &private.pod {
            extra(&format!("{EXTRA_PREFIX}pod-name"), &pod.name);
            extra(&format!("{EXTRA_PREFIX}pod-uid"), &pod.uid);
        }
        if let Some(node) = &private.node {
            extra(&format!("{EXTRA_PREFIX}node-name"), &node.name);
            extra(&format!("{EXTRA_PREFIX}node-uid"), &node.uid);
        }
        if !claims.jti.is_empty() {
            extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
        }
        user
    }

    /// The object a token is to be bound to, as claims.
    async fn bound(&self, account: &Object, reference: &Value) -> Result<Bound> {
        let (kind, name) = (reference.str_at(&["kind"]), reference.str_at(&["name"]));
        let namespace = account.namespace();
        let (resource, namespace) = match (reference.str_at(&["apiVersion"]), kind) {
            ("v1", "Pod") => ("pods", namespace),
            ("v1", "Secret") => ("secrets", namespace),
            ("v1", "Node") => ("nodes", ""),
            (version, kind) => {
                return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
            }
        };
        let object = self.reader.get("", resource, namespace, name).await?;
        let object = object.ok_or_else(|| Status::not_found("", resource, name))?;
        let asked = reference.str_at(&["uid"]);
        if !asked.is_empty() && asked != object.uid() {
            let why = format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(Status::conflict("", resource, name, why));
        }
        let reference = Some(Ref { name: name.to_owned(), uid: object.uid().to_owned() });
        match resource {
            "pods" => {
                if object.str_at(&["spec", "serviceAccountName"]) != account.name() {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        account.name()
                    )));
                }
                Ok(Bound { pod: reference, node: self.node_of(&object).await?, secret: None })
            }
            "secrets" => Ok(Bound { secret: reference, ..Default::default() }),
            _ => Ok(Bound { node: reference, ..Default::default() }),
        }
    }

    /// The node a pod runs on; without uid while the Node object is missing.
    async fn node_of(&self, pod: &Object) -> Result<Option<Ref>> {
        let name = pod.str_at(&["spec", "nodeName"]);
        if name.is_empty() {
            return Ok(None);
        }
        let uid = match self.graph.node_uid(name) {
            Some(uid) => uid,
            None => self.reader.get("", "nodes", "", name).await?.map(|n| n.uid().to_owned()).unwrap_or_default(),
        };
        Ok(Some(Ref { name: name.to_owned(), uid }))
    }
}

#[derive(Default)]
struct Bound {
    pod: Option<Ref>,
    node: Option<Ref>,
    secret: Option<Ref>,
}

#[async_trait]
impl TokenAuthenticator for ServiceAccounts {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<(UserInfo, Vec<String>)>> {
        if token::claims_unverified(token).is_none_or(|claims| claims.iss != self.issuer) {
            return Ok(None);
        }
        let Some(claims) = self.open(token) else { return Ok(None) };
        let now = clock::now();
        if now > claims.exp + LEEWAY || now < claims.nbf - LEEWAY {
            return Ok(None);
        }
        let own = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let common: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        let private = &claims.kubernetes;
        let subject = format!("{SERVICE_ACCOUNT_PREFIX}{}:{}", private.namespace, private.serviceaccount.name);
        if common.is_empty() || claims.sub != subject || !self.is_alive(&claims, now).await? {
            return Ok(None);
        }
        Ok(Some((self.user(&claims), common)))
    }
}

#[async_trait]
impl TokenIssuer for ServiceAccounts {
    async fn issue(&self, _user: &UserInfo, account: &Object, mut request: Object) -> Result<Object> {
        let spec = Spec::parse(&request, account, &self.issuer)?;
        let bound = match &spec.bound {
            Some(reference) => self.bound(account, reference).await?,
            None => Bound::default(),
        };
        let now = clock::now();
        let for_us = spec.audiences == [self.issuer.clone()];
        let extended = spec.life == EXTENDED_REQUEST && bound.pod.is_some() && for_us;
        let (namespace, name) = (account.namespace().to_owned(), account.name().to_owned());
        let claims = Claims {
            aud: spec.audiences.clone(),
            exp: now + if extended { EXTENDED_LIFE } else { spec.life },
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
            kubernetes: Private {
                namespace,
                serviceaccount: Ref { name, uid: account.uid().to_owned() },
                pod: bound.pod,
                node: bound.node,
                secret: bound.secret,
                warnafter: extended.then_some(now + spec.life),
            },
        };
        let token = token::sign(&claims, &self.key).map_err(Status::internal)?;
        let shown =
            |seconds: i64| jiff::Timestamp::from_second(seconds).map(crate::time::rfc3339).map_err(Status::internal);
        request.set_at(&["spec", "audiences"], json!(spec.audiences));
        request.set_at(&["spec", "expirationSeconds"], spec.life.into());
        request.set_at(&["metadata", "name"], account.name().into());
        request.set_at(&["metadata", "namespace"], account.namespace().into());
        request.set_at(&["metadata", "creationTimestamp"], shown(now)?.into());
        request.set_at(&["status"], json!({"token": token, "expirationTimestamp": shown(now + spec.life)?}));
        Ok(request)
    }
}

/// A checked `TokenRequestSpec`.
struct Spec {
    audiences: Vec<String>,
    life: i64,
    bound: Option<Value>,
}

impl Spec {
    fn parse(request: &Object, account: &Object, issuer: &str) -> Result<Self> {
        let name = request.name();
        if !name.is_empty() && name != account.name() {
            let why = format!("name in URL does not match name in TokenRequest object: {} {name}", account.name());
            return Err(Status::bad_request(why));
        }
        let mut errors = crate::field::Errors::new();
        let path = crate::field::Path::new("spec").child("expirationSeconds");
        let life = request.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or(DEFAULT_LIFE);
        if life < MIN_LIFE {
            errors.invalid(&path, life, "may not specify a duration less than 10 minutes");
        }
        if life > MAX_LIFE {
            errors.invalid(&path, life, "may not specify a duration larger than 2^32 seconds");
        }
        if !errors.is_empty() {
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, errors));
        }
        let audiences = request.at(&["spec", "audiences"]).and_then(Value::as_array);
        let mut audiences: Vec<String> =
            audiences.map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default();
        if audiences.is_empty() {
            audiences.push(issuer.to_owned());
        }
        let bound = request.at(&["spec", "boundObjectRef"]).filter(|b| b.is_object()).cloned();
        Ok(Spec { audiences, life, bound })
    }
}
