//! How a host becomes a node of a cluster, and stays one (DESIGN D10).
//!
//! A join: the server's CA over a connection that trusts nobody, compared with what the token pins; from then on only
//! connections that this CA vouches for. With the token: the cluster's settings, then a CertificateSigningRequest for
//! the node's own key. As the node: one for the certificate of the kubelet's API. The key is the node's identity and
//! never changes; certificates are renewed at two thirds of their life, swapped without a restart.
//!
//! | part | what it is |
//! |---|---|
//! | [`token`] | the forms a token comes in |
//! | [`identity`] | what is kept in `<data-dir>/agent/pki` |
//! | [`enter`] | the join itself |
//! | [`request`] | a certificate by a CertificateSigningRequest |
//! | [`renewal`] | certificates stay fresh; a node comes back after its certificate ended |
//! | [`elsewhere`] | where else the server answers |
//! | [`failure`] | what went wrong, as a sentence that says what to do |

pub mod elsewhere;
pub mod enter;
pub mod failure;
pub mod identity;
pub mod renewal;
pub mod request;
pub mod token;

use crate::client::{Line, Speaks};
use crate::config::{Cluster, ServerUrl};
use crate::pki::LiveCertificate;
use anyhow::Context;
use identity::Identity;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The server's CA, for everyone (k3s' path).
pub const CA_PATH: &str = "/cacerts";
/// [`Settings`], for nodes and for who may become one. `?version=` says who asks; a version that does not fit is refused.
pub const SETTINGS_PATH: &str = "/v1-kedge/cluster";
/// Takes a [`Renewal`], gives a [`Renewed`].
pub const RENEWAL_PATH: &str = "/v1-kedge/renew";

/// A name that the API server's certificate always carries, and no other certificate of its CA ever does. Agents ask
/// for it whatever they dial, so that a server is reached by any name and address, and may move.
pub const SERVER_NAME: &str = "kubernetes.default.svc";

/// What a node must know of its cluster. Kept by agents, so a field that is added later needs a serde default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    #[serde(flatten)]
    pub cluster: Cluster,
    /// PEM of the CA behind clients of the kubelet's API.
    pub client_ca: String,
    /// Kubernetes version of the server.
    pub version: String,
}

/// A node whose client certificate has ended asks for a new one: the certificate, and a signing request (both PEM) that
/// the same key has signed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewal {
    pub certificate: String,
    pub request: String,
}

/// The new certificate, PEM.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewed {
    pub certificate: String,
}

/// User name of a node.
pub fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// The group that all nodes are in.
pub const GROUP: &str = "system:nodes";

/// As whom a client speaks.
pub enum As<'a> {
    /// With this bearer token.
    Token(&'a str),
    /// With whatever certificate is live at the moment of a handshake.
    Node(Arc<LiveCertificate>),
    Nobody,
}

/// The TLS of a connection to the server. `ca` is PEM; None believes anyone.
pub fn tls(ca: Option<&str>, certificate: Option<Arc<LiveCertificate>>) -> anyhow::Result<rustls::ClientConfig> {
    let trust = ca.map_or(crate::client::Trust::Anyone, |pem| crate::client::Trust::Authority(pem.as_bytes()));
    let builder = crate::client::tls(trust).context("the server's CA")?;
    let mut tls = match certificate {
        Some(live) => builder.with_client_cert_resolver(live),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would go on with the certificate it began with.
    tls.resumption = rustls::client::Resumption::disabled();
    tls.alpn_protocols = crate::client::protocols();
    Ok(tls)
}

/// A line to the server. `ca` is PEM; None believes anyone.
pub fn line(server: &ServerUrl, ca: Option<&str>, who: As<'_>) -> anyhow::Result<Line> {
    let (token, certificate) = match who {
        As::Token(token) => (Some(crate::client::TokenSource::Fixed(token.to_owned())), None),
        As::Node(live) => (None, Some(live)),
        As::Nobody => (None, None),
    };
    let target = crate::client::Target {
        server: server.to_string().parse().context("the server's address")?,
        tls: Arc::new(tls(ca, certificate)?),
        server_name: Some(SERVER_NAME.to_owned()),
        token,
        namespace: NAMESPACE.to_owned(),
    };
    // Who is no kedge server is told so by name, not by a protocol error.
    let speaks = if ca.is_some() { Speaks::Http2 } else { Speaks::Either };
    Ok(crate::client::connect(target, speaks))
}

/// A client on a line of its own.
pub fn client(server: &ServerUrl, ca: Option<&str>, who: As<'_>) -> anyhow::Result<kube::Client> {
    Ok(line(server, ca, who)?.client(NAMESPACE))
}

/// Of requests that name none.
pub const NAMESPACE: &str = "default";

/// Ask for the cluster's settings; the server refuses versions that do not fit to its own.
pub async fn settings(client: &kube::Client) -> kube::Result<Settings> {
    let path = format!("{SETTINGS_PATH}?version={}", crate::KUBERNETES_VERSION.replace('+', "%2B"));
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// The settings as of now; as last seen when the server does not answer soon.
pub async fn current_settings(client: &kube::Client, identity: &Identity) -> anyhow::Result<Settings> {
    let kept = identity.kept_settings();
    match tokio::time::timeout(PATIENCE, settings(client)).await {
        Ok(Ok(fresh)) => {
            if kept.as_ref().is_none_or(|kept| *kept != fresh) {
                identity.keep_settings(&fresh)?;
            }
            Ok(fresh)
        }
        Ok(Err(kube::Error::Api(status))) if failure::is_skew(&status) => anyhow::bail!("{}", status.message),
        Ok(Err(error)) => {
            tracing::warn!("{}", failure::of(&error, &identity.server));
            kept.context("the cluster's settings are not kept here")
        }
        Err(_) => kept.context("the cluster's settings are not kept here"),
    }
}

/// How long a start waits for the server when it can do without.
const PATIENCE: std::time::Duration = crate::kept::PATIENCE;
