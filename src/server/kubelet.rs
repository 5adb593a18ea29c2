//! The API server's way to kubelets: one verified TLS connection a stream (DESIGN D10; a tunnel comes with more nodes).

use crate::object::{Object, ObjectExt};
use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::upgrade::{self, Answer};
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
    group: Group,
}

impl Kubelets {
    pub fn new(identity: Identity, group: Group) -> Arc<Self> {
        Arc::new(Kubelets { identity, group })
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
        let name = node.name();
        let (address, port) = endpoint(node)?;
        let failed = |step: &str, error: String| {
            Status::internal(format!("error dialing the kubelet of node {name} at {address}:{port}: {step}: {error}"))
        };
        let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((address.as_str(), port))).await;
        let tcp = tcp
            .map_err(|_| failed("connect", "timed out".to_owned()))?
            .map_err(|e| failed("connect", e.to_string()))?;
        let _ = tcp.set_nodelay(true);
        let tls = self.identity.config().map_err(|e| failed("certificates", format!("{e:#}")))?;
        let server_name = ServerName::try_from(name.to_owned()).map_err(|e| failed("node name", e.to_string()))?;
        let stream =
            TlsConnector::from(tls).connect(server_name, tcp).await.map_err(|e| failed("TLS", e.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|e| failed("path", format!("{e}")))?;
        *request.headers_mut() = forwarded(headers);
        if let Ok(host) = HeaderValue::from_str(&format!("{address}:{port}")) {
            request.headers_mut().insert(header::HOST, host);
        }
        upgrade::request(stream, request, &self.group).await.map_err(|e| failed("request", e.to_string()))
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

/// Address and port of a node's kubelet, as it reports them.
fn endpoint(node: &Object) -> Result<(String, u16)> {
    let addresses = node.at(&["status", "addresses"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of =
        |kind: &str| addresses.iter().find(|a| a.str_at(&["type"]) == kind).map(|a| a.str_at(&["address"]).to_owned());
    let address = of("InternalIP").or_else(|| of("Hostname")).filter(|a| !a.is_empty());
    let address =
        address.ok_or_else(|| Status::internal(format!("no preferred addresses found for node {}", node.name())))?;
    let port = node.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
    Ok((address, port.and_then(|p| u16::try_from(p).ok()).unwrap_or(10250)))
}

/// The client's headers without its credentials and without what belongs to its own connection.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    for name in [header::AUTHORIZATION, header::HOST, header::TE, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        out.remove(name);
    }
    let impersonation: Vec<_> = out.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        out.remove(name);
    }
    out
}
