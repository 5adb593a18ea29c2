//! HTTPS to an API server, named by a kubeconfig or by a node's identity: our own connector, so that no second TLS
//! stack comes in.

use super::elsewhere::{self, Elsewhere};
use super::line::Line;
use crate::task::Group;
use crate::wire::socket;
use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a kubeconfig is looked at for new certificates.
const FOLLOW_EVERY: Duration = Duration::from_secs(60);

/// Where to, and as whom.
pub struct Target {
    /// `https://host:port`, perhaps with a path.
    pub server: Uri,
    pub tls: Arc<ClientConfig>,
    /// Name that the server's certificate must carry, if it is not the host in `server`.
    pub server_name: Option<String>,
    pub token: Option<TokenSource>,
    /// Of requests that name none.
    pub namespace: String,
}

/// A bearer token: fixed, or a file that is read again for each request (projected tokens are rotated).
#[derive(Clone)]
pub enum TokenSource {
    Fixed(String),
    File(PathBuf),
    /// Whatever somebody keeps here.
    Live(Arc<ArcSwap<String>>),
}

/// The parts of a kubeconfig that we read; exec plugins and the like are not for servers.
#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default, rename = "current-context")]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    users: Vec<Named<User>>,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: Option<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
}

#[derive(Default, Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
    namespace: Option<String>,
}

/// A client for the current context of a kubeconfig file. Needs a running tokio runtime.
pub fn client(path: &Path) -> anyhow::Result<kube::Client> {
    let target = load(path)?;
    let namespace = target.namespace.clone();
    Ok(connect(target, Speaks::Either).client(&namespace))
}

/// The same for kedge's own server, with the line beneath.
pub fn line(path: &Path) -> anyhow::Result<Line> {
    Ok(connect(load(path)?, Speaks::Http2))
}

/// A line to the server of a kubeconfig file, for as long as `group` runs: it goes on with whatever certificates the
/// file, or the files that it names, hold later.
pub fn followed(path: &Path, group: &Group) -> anyhow::Result<Line> {
    let line = connect(load(path)?, Speaks::Either);
    let (follower, path, mut last) = (line.clone(), path.to_owned(), contents(path)?);
    group.spawn("kubeconfig", async move {
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            // A file that is just being written is read again later.
            let Ok(now) = contents(&path) else { continue };
            if now == last {
                continue;
            }
            match load(&path) {
                Ok(target) => {
                    tracing::info!(file = %path.display(), "the kubeconfig has changed");
                    follower.replace(connector(target.tls, target.server_name));
                    last = now;
                }
                Err(error) => tracing::debug!(error = format!("{error:#}"), "the changed kubeconfig is of no use yet"),
            }
        }
    });
    Ok(line)
}

/// A line to the server of a kubeconfig file, as whoever a token says.
pub fn with_token(path: &Path, token: TokenSource) -> anyhow::Result<Line> {
    let (config, shown) = (read(path)?, || format!("kubeconfig {}", path.display()));
    let context = pick(config.contexts, &config.current_context, "context").with_context(shown)?;
    let cluster = pick(config.clusters, &context.cluster, "cluster").with_context(shown)?;
    let target = target_of(cluster, &User::default(), path.parent()).with_context(shown)?;
    Ok(connect(Target { token: Some(token), ..target }, Speaks::Either))
}

/// A kubeconfig file with everything that it names.
fn contents(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let (config, dir) = (read(path)?, path.parent());
    let clusters = config.clusters.into_iter().flat_map(|c| c.value).map(|c| c.certificate_authority);
    let users = config.users.into_iter().flat_map(|u| u.value).flat_map(|u| [u.client_certificate, u.client_key]);
    let files = clusters.chain(users).flatten().map(|file| resolve(dir, &file));
    std::iter::once(path.to_owned()).chain(files).map(|file| Ok(std::fs::read(file)?)).collect()
}

/// Server (`https://host:port`) and CA (PEM) of the current context of a kubeconfig file.
pub fn cluster_of(path: &Path) -> anyhow::Result<(String, Option<Vec<u8>>)> {
    let config: Kubeconfig = read(path)?;
    let shown = || format!("kubeconfig {}", path.display());
    let context = pick(config.contexts, &config.current_context, "context").with_context(shown)?;
    let cluster = pick(config.clusters, &context.cluster, "cluster").with_context(shown)?;
    let (data, file) = (&cluster.certificate_authority_data, &cluster.certificate_authority);
    let ca = pem(data, file, path.parent(), "certificate-authority").with_context(shown)?;
    Ok((cluster.server, ca))
}

/// What is known of a server's protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Either,
    /// kedge's own server.
    Http2,
}

/// A line to this target. Needs a running tokio runtime; connects with the first request.
pub fn connect(target: Target, speaks: Speaks) -> Line {
    let Target { server, tls, server_name, token, .. } = target;
    Line::new(connector(tls, server_name), server, token, speaks == Speaks::Http2)
}

fn connector(tls: Arc<ClientConfig>, server_name: Option<String>) -> Connector {
    Connector { tls: TlsConnector::from(tls), server_name, elsewhere: Elsewhere::default() }
}

fn load(path: &Path) -> anyhow::Result<Target> {
    target(read(path)?, path.parent()).with_context(|| format!("kubeconfig {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Kubeconfig> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read kubeconfig {shown}"))?;
    serde_yaml::from_str(&text).with_context(|| format!("cannot parse kubeconfig {shown}"))
}

/// Give a request its address and its token.
pub(super) fn prepare<B>(
    request: &mut Request<B>,
    server: &Uri,
    token: Option<&TokenSource>,
) -> Result<(), tower::BoxError> {
    let base = server.path().trim_end_matches('/');
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let mut parts = server.clone().into_parts();
    parts.path_and_query = Some(format!("{base}{path}").parse()?);
    *request.uri_mut() = Uri::from_parts(parts)?;
    let token = match token {
        None => return Ok(()),
        Some(TokenSource::Fixed(token)) => token.clone(),
        Some(TokenSource::File(path)) => std::fs::read_to_string(path)?.trim().to_owned(),
        Some(TokenSource::Live(token)) => token.load().to_string(),
    };
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(())
}

fn target(config: Kubeconfig, dir: Option<&Path>) -> anyhow::Result<Target> {
    let context = pick(config.contexts, &config.current_context, "context")?;
    let cluster = pick(config.clusters, &context.cluster, "cluster")?;
    let user = if context.user.is_empty() { User::default() } else { pick(config.users, &context.user, "user")? };
    let target = target_of(cluster, &user, dir)?;
    Ok(Target { namespace: context.namespace.unwrap_or(target.namespace), ..target })
}

fn target_of(cluster: Cluster, user: &User, dir: Option<&Path>) -> anyhow::Result<Target> {
    let server: Uri = cluster.server.parse().with_context(|| format!("server {:?} is no address", cluster.server))?;
    if server.scheme_str() != Some("https") {
        bail!("server {server} is not an https address");
    }
    let token = match (&user.token, &user.token_file) {
        (Some(token), _) => Some(TokenSource::Fixed(token.clone())),
        (None, Some(file)) => Some(TokenSource::File(resolve(dir, file))),
        (None, None) => None,
    };
    let tls = Arc::new(tls_config(&cluster, user, dir)?);
    Ok(Target { server, tls, server_name: cluster.tls_server_name, token, namespace: "default".to_owned() })
}

fn pick<T: Default>(list: Vec<Named<T>>, name: &str, what: &str) -> anyhow::Result<T> {
    let found = list.into_iter().find(|n| n.name == name);
    Ok(found.with_context(|| format!("{what} {name:?} is missing"))?.value.unwrap_or_default())
}

/// Relative paths count from the kubeconfig's directory.
fn resolve(dir: Option<&Path>, file: &str) -> PathBuf {
    dir.unwrap_or(Path::new("")).join(file)
}

/// PEM from inline base64, else from a file, else none.
fn pem(
    data: &Option<String>,
    file: &Option<String>,
    dir: Option<&Path>,
    what: &str,
) -> anyhow::Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => {
            let bytes = BASE64_STANDARD.decode(data.trim()).with_context(|| format!("{what}-data is not base64"))?;
            Ok(Some(bytes))
        }
        (None, Some(file)) => {
            let path = resolve(dir, file);
            Ok(Some(std::fs::read(&path).with_context(|| format!("cannot read {what} {}", path.display()))?))
        }
        (None, None) => Ok(None),
    }
}

fn tls_config(cluster: &Cluster, user: &User, dir: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let authority =
        pem(&cluster.certificate_authority_data, &cluster.certificate_authority, dir, "certificate-authority")?;
    let trust = match &authority {
        _ if cluster.insecure_skip_tls_verify => Trust::Anyone,
        Some(authority) => Trust::Authority(authority),
        None => bail!("the cluster names no certificate-authority"),
    };
    let builder = tls(trust).context("certificate-authority")?;
    let certificate = pem(&user.client_certificate_data, &user.client_certificate, dir, "client-certificate")?;
    let key = pem(&user.client_key_data, &user.client_key, dir, "client-key")?;
    let mut config = authenticated(builder, certificate.zip(key))?;
    config.alpn_protocols = protocols();
    Ok(config)
}

/// TLS with an etcd: HTTP/2 alone. PEM files; `client` is certificate and key.
pub fn etcd_tls(authority: &Path, client: Option<(&Path, &Path)>) -> anyhow::Result<Arc<ClientConfig>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let client = client.map(|(certificate, key)| anyhow::Ok((read(certificate)?, read(key)?))).transpose()?;
    let mut config = authenticated(tls(Trust::Authority(&read(authority)?))?, client)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn authenticated(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    client: Option<(Vec<u8>, Vec<u8>)>,
) -> anyhow::Result<ClientConfig> {
    let Some((certificate, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&key).context("parsing the client's key")?;
    builder.with_client_auth_cert(chain.context("parsing the client's certificate")?, key).context("client certificate")
}

/// TLS with whoever answers, without a certificate of our own.
pub fn unverified_config() -> anyhow::Result<Arc<ClientConfig>> {
    Ok(Arc::new(tls(Trust::Anyone)?.with_no_client_auth()))
}

/// HTTP/2 before 1.1.
pub fn protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// Whom a client believes to be the server.
pub enum Trust<'a> {
    /// Who has a certificate of these CAs (PEM) for the name.
    Authority(&'a [u8]),
    /// Anyone: only for what is public and checked otherwise.
    Anyone,
}

/// The beginning of a TLS configuration, on the floored clock (DESIGN D11).
pub fn tls(trust: Trust<'_>) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(crate::pki::clock::FlooredClock))
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?;
    let authority = match trust {
        Trust::Anyone => {
            return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))));
        }
        Trust::Authority(pem) => pem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.context("parsing the CA")?).context("trusting the CA")?;
    }
    Ok(builder.with_root_certificates(roots))
}

/// `insecure-skip-tls-verify`: signatures are checked, the identity is not.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Connects TCP and TLS.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    server_name: Option<String>,
    pub(super) elsewhere: Elsewhere,
}

impl Connector {
    /// The same for a place that is the only one.
    pub(super) fn alone(&self) -> Self {
        Connector { elsewhere: Elsewhere::default(), ..self.clone() }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { tls, server_name, elsewhere } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let name =
                ServerName::try_from(server_name.unwrap_or_else(|| host.clone())).map_err(std::io::Error::other)?;
            let connect = |place: (String, u16)| {
                let (tls, name) = (tls.clone(), name.clone());
                async move {
                    let tcp = TcpStream::connect(place).await?;
                    socket::tune(&tcp)?;
                    tls.connect(name, tcp).await
                }
            };
            let attempts = elsewhere.places(&host, port).into_iter().map(connect);
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, elsewhere::first(attempts)).await;
            let timeout = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, format!("connecting to {host}:{port}"));
            Ok(TokioIo::new(Stream(connected.map_err(timeout)??)))
        })
    }
}

/// A TLS stream that tells the pool whether it speaks HTTP/2.
pub(super) struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self.0.get_ref().1.alpn_protocol() {
            Some(b"h2") => Connected::new().negotiated_h2(),
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
