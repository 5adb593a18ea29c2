//! The join itself. What can pass by itself is waited for; what cannot ends it, and nothing half-joined is left.

use super::failure::{self, Failure};
use super::identity::{Host, Identity, Kind};
use super::token::{self, Digest, Token};
use super::{As, CA_PATH, Settings, request};
use crate::config;
use http::header::DATE;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// Between attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LONGEST: Duration = Duration::from_secs(15);
/// The same trouble is logged this often.
const MENTION_EVERY: Duration = Duration::from_secs(60);
/// Clocks may differ by this much, seconds: the server's certificates are valid an hour back, and half of it is left
/// for drift.
const CLOCKS_APART: i64 = 1800;
/// Largest CA bundle that is read.
const MAX_CA_BYTES: usize = 64 * 1024;

/// The identity kept from an earlier join, or a new one. Returns only with an identity, or when a person must act.
pub async fn enter(config: &config::Agent) -> anyhow::Result<Identity> {
    let host = Host::of(config);
    if let Some(identity) = host.kept()? {
        return Ok(identity);
    }
    let Some(token) = &config.token else {
        anyhow::bail!(
            "this host has not joined a cluster yet: give the token with --token or --token-file (on the server: \
             `kedge token create --print-join-command`)"
        );
    };
    let mut pause = Pause::default();
    loop {
        match join(&host, token, &config.ca_hashes).await {
            Ok(identity) => return Ok(identity),
            Err(Failure::Later(why)) => pause.wait(&why).await,
            Err(refused) => anyhow::bail!("{refused}"),
        }
    }
}

/// Growing pauses, with a log line for new trouble and once a minute for old.
#[derive(Default)]
pub struct Pause {
    tries: u32,
    mentioned: Option<(Instant, String)>,
}

impl Pause {
    pub async fn wait(&mut self, why: &str) {
        let known = self.mentioned.as_ref().is_some_and(|(at, text)| text == why && at.elapsed() < MENTION_EVERY);
        if !known {
            warn!("{why}; trying again");
            self.mentioned = Some((Instant::now(), why.to_owned()));
        }
        let pause = PAUSE_LONGEST.min(PAUSE_FIRST * 2u32.saturating_pow(self.tries.min(8)));
        self.tries += 1;
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.7..1.3))).await;
    }
}

/// One attempt.
async fn join(host: &Host, token: &Token, ca_hashes: &[Digest]) -> Result<Identity, Failure> {
    let ca = discover(host, token, ca_hashes).await?;
    let identity = host.begin(&ca);
    let client = super::client(&host.server, Some(&ca), As::Token(&token.secret))?;
    let settings = settings(&client, token, &identity).await?;
    let (_, new_key) = identity.key(Kind::Client)?;
    let certificate = match request::certificate(&client, &identity, Kind::Client).await {
        Err(refused @ Failure::Refused(_)) => {
            if new_key {
                identity.forget_key(Kind::Client);
            }
            return Err(refused);
        }
        other => other?,
    };
    identity.keep_server_ca()?;
    identity.keep_settings(&settings)?;
    identity.install(Kind::Client, certificate)?;
    info!(node = identity.node_name, server = %host.server, "joined the cluster");
    Ok(identity)
}

async fn settings(client: &kube::Client, token: &Token, identity: &Identity) -> Result<Settings, Failure> {
    let server = &identity.server;
    super::settings(client).await.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 401 && token.is_bootstrap() => Failure::refused(format!(
            "{server} does not know this token, or it has expired; make a new one on the server: kedge token create \
             --print-join-command"
        )),
        kube::Error::Api(status) if status.code == 401 => Failure::refused(format!(
            "{server} refuses this token; the right one is in DATA-DIR/server/node-token on the server \
             (/var/lib/kedge/server/node-token)"
        )),
        _ => failure::of(&error, server),
    })
}

/// The server's CA (PEM), checked against what is pinned.
async fn discover(host: &Host, token: &Token, ca_hashes: &[Digest]) -> Result<String, Failure> {
    let server = &host.server;
    let client = super::client(server, None, As::Nobody)?;
    let ask = http::Request::get(CA_PATH).body(kube::client::Body::empty());
    let ask = ask.map_err(|e| Failure::refused(e.to_string()))?;
    let answer = client.send(ask).await.map_err(|error| failure::of(&error, server))?;
    let date = answer.headers().get(DATE).and_then(|d| d.to_str().ok()).and_then(http_date);
    let found = answer.status().is_success();
    let body = http_body_util::Limited::new(answer.into_body(), MAX_CA_BYTES);
    let body = http_body_util::BodyExt::collect(body).await;
    let body = body.map_err(|error| Failure::later(format!("{server}{CA_PATH}: {error}")))?.to_bytes();
    let pem = String::from_utf8(body.to_vec()).ok().filter(|_| found);
    let der = pem.as_ref().and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
    let (Some(pem), Some(der)) = (pem, der) else {
        return Err(Failure::refused(format!("{server} does not look like a kedge server: no CA at {CA_PATH}")));
    };
    check_pins(server, &der, token, ca_hashes)?;
    check_clock(server, date, crate::time::now_seconds())?;
    Ok(pem)
}

fn check_pins(
    server: &config::ServerUrl,
    ca: &CertificateDer<'_>,
    token: &Token,
    ca_hashes: &[Digest],
) -> Result<(), Failure> {
    let found = token::sha256(ca);
    if let Some(wanted) = &token.ca
        && *wanted != found
    {
        return Err(Failure::refused(format!(
            "the CA of {server} is not the one in the token (it is {}, the token says {}): the token is of another \
             cluster, or somebody is in between; on the right server, DATA-DIR/server/node-token has the right token",
            token::hex(&found),
            token::hex(wanted)
        )));
    }
    if !ca_hashes.is_empty() {
        let (_, parsed) = x509_parser::parse_x509_certificate(ca)
            .map_err(|e| Failure::refused(format!("the CA of {server} cannot be read: {e}")))?;
        let found = token::sha256(parsed.public_key().raw);
        if !ca_hashes.contains(&found) {
            return Err(Failure::refused(format!(
                "the CA of {server} has the hash sha256:{}, which is not in --discovery-token-ca-cert-hash: the hash \
                 is of another cluster, or somebody is in between",
                token::hex(&found)
            )));
        }
    } else if token.ca.is_none() {
        warn!(
            "the token does not say which CA is the right one, so the one of {server} is believed: sha256 {}; the \
             long form of the token (K10…) or --discovery-token-ca-cert-hash would pin it",
            token::hex(&found)
        );
    }
    Ok(())
}

/// A wrong clock would make every certificate look invalid, here or there.
fn check_clock(server: &config::ServerUrl, theirs: Option<i64>, ours: i64) -> Result<(), Failure> {
    let Some(theirs) = theirs.filter(|theirs| (theirs - ours).abs() > CLOCKS_APART) else { return Ok(()) };
    let text = |seconds| crate::time::rfc3339(jiff::Timestamp::from_second(seconds).unwrap_or_default());
    Err(Failure::later(format!(
        "the clocks differ too much: here it is {}, on {server} {}; set the wrong one (timedatectl set-ntp true)",
        text(ours),
        text(theirs)
    )))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7) in Unix seconds.
fn http_date(text: &str) -> Option<i64> {
    let civil = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let server = config::ServerUrl::parse("https://a").unwrap();
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(now, 784_111_777);
        assert_eq!(http_date("yesterday"), None);
        for (theirs, fine) in
            [(None, true), (Some(now), true), (Some(now - 1800), true), (Some(now + 1801), false), (Some(0), false)]
        {
            assert_eq!(check_clock(&server, theirs, now).is_ok(), fine, "{theirs:?}");
        }
        let why = check_clock(&server, Some(now + 7200), now).unwrap_err().to_string();
        assert!(why.contains("here it is 1994-11-06T08:49:37Z, on https://a:6443 1994-11-06T10:49:37Z"), "{why}");
    }

    #[test]
    fn pins() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let server = config::ServerUrl::parse("https://a").unwrap();
        let (right, wrong) = (token::sha256(ca.der()), [0; 32]);
        let key_hash = token::sha256(&rcgen::PublicKeyData::subject_public_key_info(&key));
        // (pinned by the token, hashes of the flag, accepted)
        let cases: [(Option<Digest>, &[Digest], bool); 7] = [
            (None, &[], true),
            (Some(right), &[], true),
            (Some(wrong), &[], false),
            (None, &[key_hash], true),
            (None, &[wrong, key_hash], true),
            (None, &[wrong], false),
            (Some(right), &[wrong], false),
        ];
        for (pinned, hashes, accepted) in cases {
            let token = Token { ca: pinned, secret: "s".into() };
            assert_eq!(check_pins(&server, ca.der(), &token, hashes).is_ok(), accepted, "{pinned:?} {hashes:?}");
        }
    }
}
