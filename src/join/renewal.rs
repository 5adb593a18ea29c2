//! Certificates stay fresh: renewed at two thirds of their life (SIGUSR1: now) and swapped without a restart. A node whose client
//! certificate has ended (it was switched off for two years) comes back by its key, else by its token.

use super::enter::Pause;
use super::failure::{self, Failure};
use super::identity::{Identity, Kind, Life};
use super::token::Token;
use super::{As, NAMESPACE, RENEWAL_PATH, Renewal, Renewed, request};
use crate::client::Line;
use crate::task::Group;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Clocks may jump: the due time is looked at again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// What renewal needs.
#[derive(Clone)]
pub struct Renewer {
    pub identity: Arc<Identity>,
    /// As the node; goes on with each new certificate.
    pub line: Line,
    /// Lets a node in again that the server does not know by its key.
    pub token: Option<Token>,
}

impl Renewer {
    /// Keep these certificates fresh until the group ends.
    pub fn start(self, kinds: &[Kind], group: &Group) {
        for &kind in kinds {
            let renewer = self.clone();
            group.spawn("certificate", async move { renewer.keep_fresh(kind).await });
        }
    }

    async fn keep_fresh(&self, kind: Kind) {
        let mut pause = Pause::default();
        let mut told = match signal(SignalKind::user_defined1()) {
            Ok(told) => told,
            Err(error) => return tracing::error!(%error, "cannot listen to signals; certificates are not renewed"),
        };
        loop {
            tokio::select! {
                () = self.until_due(kind) => {}
                _ = told.recv() => {}
            }
            let outcome = match self.renewed(kind).await {
                Ok(certificate) => self.identity.install(kind, certificate).map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            match outcome {
                Ok(()) => {
                    info!(kind = kind.name(), "this node has a new certificate");
                    if kind == Kind::Client {
                        self.line.rotate();
                    }
                    pause = Pause::default();
                }
                Err(failure) => pause.wait(&format!("no new {} certificate: {failure}", kind.name())).await,
            }
        }
    }

    async fn until_due(&self, kind: Kind) {
        while let Some(left) = self.left(kind).filter(|left| *left > 0) {
            tokio::time::sleep(LOOK_EVERY.min(Duration::from_secs(left.unsigned_abs()))).await;
            self.identity.keep_time();
        }
    }

    /// Seconds until the certificate is due; None: there is none.
    fn left(&self, kind: Kind) -> Option<i64> {
        let life = Life::of(&self.identity.certificate(kind)?)?;
        Some(life.due() - crate::time::now_seconds())
    }

    /// A new certificate, by whatever way is open.
    async fn renewed(&self, kind: Kind) -> Result<String, Failure> {
        let ended = kind == Kind::Client && has_ended(&self.identity);
        if !ended {
            match request::certificate(&self.line.client(NAMESPACE), &self.identity, kind).await {
                Err(Failure::Ended) if kind == Kind::Client => {}
                other => return other,
            }
        }
        comeback(&self.identity, self.token.as_ref()).await
    }
}

/// By the node's own clock its client certificate is over.
pub fn has_ended(identity: &Identity) -> bool {
    let life = identity.certificate(Kind::Client).and_then(|pem| Life::of(&pem));
    life.is_none_or(|life| life.end <= crate::time::now_seconds())
}

/// A client certificate for a node whose last one has ended: the server knows its key; else the token lets it in.
pub async fn comeback(identity: &Identity, token: Option<&Token>) -> Result<String, Failure> {
    let by_key = by_key(identity).await;
    match (by_key, token) {
        (Err(Failure::Refused(why)), Some(token)) => {
            info!("the server does not renew this node's old certificate ({why}); trying the token");
            let client = super::client(&identity.server, Some(&identity.server_ca), As::Token(&token.secret))?;
            request::certificate(&client, identity, Kind::Client).await
        }
        (outcome, _) => outcome,
    }
}

/// The old certificate and a request signed by the same key, to the renewal endpoint.
async fn by_key(identity: &Identity) -> Result<String, Failure> {
    let client = super::client(&identity.server, Some(&identity.server_ca), As::Nobody)?;
    let (key, _) = identity.key(Kind::Client)?;
    let renewal = Renewal {
        certificate: identity.certificate(Kind::Client).unwrap_or_default(),
        request: identity.signing_request(Kind::Client, &key)?,
    };
    let body = serde_json::to_vec(&renewal).map_err(anyhow::Error::from)?;
    let request = http::Request::post(RENEWAL_PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(anyhow::Error::from)?;
    let answer: Renewed = client.request(request).await.map_err(|e| failure::of(&e, &identity.server))?;
    Ok(answer.certificate)
}
