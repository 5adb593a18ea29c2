//! The API server's way to kubelets: one verified TLS connection a stream, over whatever the dialer gives (DESIGN D10).

use crate::client;
use crate::object::{Object, ObjectExt};
use crate::server::dial::Dialer;
use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::forward;
use crate::wire::stream::BoxStream;
use crate::wire::upgrade::{self, Answer};
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Files that are read for each connection: they are renewed while we run.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Signs kubelets' serving certificates.
    pub server_ca: PathBuf,
}

/// Dials kubelets.
pub struct Kubelets {
    identity: Identity,
    dialer: Dialer,
    group: Group,
}

impl Kubelets {
    pub fn new(identity: Identity, dialer: Dialer, group: Group) -> Arc<Self> {
        Arc::new(Kubelets { identity, dialer, group })
    }

    /// Send one request to the kubelet of `node`. `path` is the kubelet's own, with its query.
    pub async fn request(
        &self,
        node: &Object,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Answer> {
        let (address, port) = endpoint(node)?;
        let name = node.name();
        let failed = |error: String| Status::internal(format!("error dialing the kubelet of node {name}: {error}"));
        let stream = self.connect(node).await.map_err(|e| failed(e.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|e| failed(format!("path: {e}")))?;
        *request.headers_mut() = without_credentials(&forward::request_headers(headers));
        let host = HeaderValue::from_str(&format!("{address}:{port}")).map_err(|e| failed(e.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        upgrade::request(stream, request, &self.group).await.map_err(|e| failed(format!("request: {e}")))
    }

    /// A connection to the kubelet of `node`, which has proved that it is that node's.
    pub async fn connect(&self, node: &Object) -> io::Result<BoxStream> {
        let name = node.name();
        let (address, port) = endpoint(node).map_err(io::Error::other)?;
        let stream = self.dialer.kubelet(name, &address, port).await?;
        let config = self.identity.config().map_err(|e| io::Error::other(format!("certificates: {e:#}")))?;
        tls(stream, config, name).await
    }

    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub fn group(&self) -> &Group {
        &self.group
    }
}

impl Identity {
    fn config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.server_ca)? {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?))
    }
}

/// TLS on a stream whose peer nobody vouches for: what pods and Services serve.
pub async fn unverified_tls(stream: BoxStream, host: &str) -> io::Result<BoxStream> {
    let config = client::unverified_config().map_err(|e| io::Error::other(format!("{e:#}")))?;
    tls(stream, config, host).await
}

async fn tls(stream: BoxStream, config: Arc<ClientConfig>, name: &str) -> io::Result<BoxStream> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, stream)).await;
    let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timeout");
    let stream = shaken.map_err(timeout).flatten().map_err(|e| io::Error::new(e.kind(), format!("tls: {e}")))?;
    Ok(Box::new(stream))
}

/// Address and port of a node's kubelet, as it reports them.
pub fn endpoint(node: &Object) -> Result<(String, u16)> {
    let addresses = node.at(&["status", "addresses"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of =
        |kind: &str| addresses.iter().find(|a| a.str_at(&["type"]) == kind).map(|a| a.str_at(&["address"]).to_owned());
    let address = of("InternalIP").or_else(|| of("Hostname")).filter(|a| !a.is_empty());
    let address =
        address.ok_or_else(|| Status::internal(format!("no preferred addresses found for node {}", node.name())))?;
    let port = node.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
    Ok((address, port.and_then(|p| u16::try_from(p).ok()).unwrap_or(10250)))
}

/// A client's headers without what was meant for this server alone.
pub fn without_credentials(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    for name in [header::AUTHORIZATION, header::HOST] {
        out.remove(name);
    }
    let impersonation: Vec<_> = out.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        out.remove(name);
    }
    out
}
