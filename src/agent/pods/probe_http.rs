//! HTTP as probes and hooks speak it: one GET, certificates not verified, redirects followed on the same host.

use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What is read of an answer's body, for messages.
const BODY_BYTES_MAX: usize = 10 << 10;
const REDIRECTS_MAX: usize = 10;

/// Where to ask.
#[derive(Clone, Debug)]
pub struct Target {
    pub https: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// Status code and the beginning of the body.
pub type Answer = (u16, String);

impl Target {
    /// The address that an `httpGet` means: the pod's own unless it names a host.
    pub fn of(
        pod: &Pod,
        container: &Container,
        action: &HTTPGetAction,
        pod_ips: &[String],
        node_ip: &str,
    ) -> Result<Self, String> {
        let path = action.path.as_deref().unwrap_or("/");
        let headers = action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
        Ok(Target {
            https: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host(pod, action.host.as_deref(), pod_ips, node_ip)?,
            port: port(container, &action.port)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: headers.collect(),
        })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.authority(), self.path)
    }
}

/// The host of an action, else the pod's address (the node's for pods on its network).
pub fn host(pod: &Pod, own: Option<&str>, pod_ips: &[String], node_ip: &str) -> Result<String, String> {
    if let Some(host) = own.filter(|h| !h.is_empty()) {
        return Ok(host.to_owned());
    }
    if pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true)) {
        return Ok(node_ip.to_owned());
    }
    pod_ips.first().cloned().ok_or_else(|| "the pod has no address".to_owned())
}

/// A port by number, or by the name that the container gives it.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| format!("couldn't find port {port:?} in container {}", container.name))?;
    u16::try_from(number).ok().filter(|p| *p > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// One GET, with its redirects, within `limit`. Errors read like Go's.
pub async fn get(target: &Target, limit: Duration) -> Result<Answer, String> {
    let mut target = target.clone();
    let url = target.url();
    let work = async {
        for _ in 0..REDIRECTS_MAX {
            let (code, body, location) = get_once(&target).await?;
            match location.filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308)).and_then(|l| redirected(&target, &l))
            {
                Some(next) => target = next,
                // Elsewhere: upstream does not follow, and counts it as alive.
                None => return Ok((code, body)),
            }
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(|why| format!("Get \"{url}\": {why}")),
        Err(_) => {
            Err(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

/// The next target, if it is on the same host.
fn redirected(from: &Target, location: &str) -> Option<Target> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query()?.as_str().to_owned();
    let Some(host) = uri.host() else { return Some(Target { path, ..from.clone() }) };
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    (host == from.host).then(|| Target { https, port, path, ..from.clone() })
}

async fn get_once(target: &Target) -> Result<(u16, String, Option<String>), String> {
    let stream = connect(&target.host, target.port).await?;
    if !target.https {
        return exchange(target, stream).await;
    }
    let name = rustls_pki_types::ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(unverified()?);
    let stream = connector.connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    exchange(target, stream).await
}

/// A TCP connection; errors read like Go's.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = match error.raw_os_error() {
            // `Connection refused (os error 111)` → `connection refused`
            Some(code) => nix::errno::Errno::from_raw(code).desc().to_ascii_lowercase(),
            None => error.to_string(),
        };
        format!("dial tcp {shown}: connect: {why}")
    })
}

async fn exchange<S>(target: &Target, stream: S) -> Result<(u16, String, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::get(&target.path).body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let headers = request.headers_mut();
    let authority = HeaderValue::from_str(&target.authority()).map_err(|e| e.to_string())?;
    headers.insert(http::header::HOST, authority);
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static("kube-probe/1.37"));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in &target.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("invalid header name {name:?}"))?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| "invalid header value".to_owned())?);
    }
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| describe(&e))?;
        let code = answer.status().as_u16();
        let location = answer.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d.as_ref()));
            if text.len() >= BODY_BYTES_MAX {
                text.truncate(BODY_BYTES_MAX);
                break;
            }
        }
        Ok((code, String::from_utf8_lossy(&text).into_owned(), location))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection moves the bytes, and may be done before the last of them were looked at.
        result = connection => match result {
            Ok(()) => answer.await,
            Err(error) => Err(describe(&error)),
        },
    }
}

fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "EOF".to_owned()
    } else {
        error.to_string()
    }
}

/// TLS that trusts anyone: a probe asks whether a server answers, not who it is.
fn unverified() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()))
}

#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives one answer a connection, then is gone.
    #[expect(clippy::disallowed_methods, reason = "each test awaits what was asked")]
    async fn server(answers: Vec<&'static str>) -> (Target, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        let headers = vec![("X-A".to_owned(), "b".to_owned())];
        (Target { https: false, host: "127.0.0.1".into(), port, path: "/x?y".into(), headers }, served)
    }

    #[tokio::test]
    async fn asks_and_follows() {
        let limit = Duration::from_secs(60);
        let (target, served) = server(vec!["HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno"]).await;
        assert_eq!(get(&target, limit).await, Ok((503, "no".into())));
        let request = served.await.unwrap().remove(0).to_ascii_lowercase();
        assert!(request.starts_with("get /x?y http/1.1\r\n") && request.contains("x-a: b\r\n"), "{request}");
        assert!(request.contains("user-agent: kube-probe/1.37\r\n"));

        let moved = "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n";
        let (target, served) = server(vec![moved, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(get(&target, limit).await, Ok((200, String::new())));
        assert!(served.await.unwrap()[1].starts_with("GET /next "));

        let away = "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n";
        let (target, _served) = server(vec![away]).await;
        assert_eq!(get(&target, limit).await.unwrap().0, 302);
    }

    #[tokio::test]
    async fn errors_read_like_upstreams() {
        let (target, served) = server(vec![""]).await;
        let url = target.url();
        assert_eq!(get(&target, Duration::from_secs(60)).await, Err(format!("Get \"{url}\": EOF")));
        served.await.unwrap();
        let refused = get(&target, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(refused, format!("Get \"{url}\": dial tcp 127.0.0.1:{}: connect: connection refused", target.port));
    }
}
