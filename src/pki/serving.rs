//! TLS configurations of listeners, with a certificate that can be swapped while they run.

use super::authority::Authority;
use super::clock::FlooredClock;
use super::leaf::Leaf;
use anyhow::{Context, Result};
use arc_swap::ArcSwapOption;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// TLS sessions kept for resumption; the oldest goes when full.
const SESSIONS: usize = 256;

/// The certificate that new handshakes get, on either side.
#[derive(Debug, Default)]
pub struct LiveCertificate(ArcSwapOption<CertifiedKey>);

impl LiveCertificate {
    pub fn is_empty(&self) -> bool {
        self.0.load().is_none()
    }

    /// Use this leaf from the next handshake on.
    pub fn set(&self, leaf: &Leaf) -> Result<()> {
        let chain = CertificateDer::pem_slice_iter(leaf.cert_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("parsing the serving certificate")?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).context("parsing the serving key")?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).context("using the serving key")?;
        self.0.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesClientCert for LiveCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        !self.is_empty()
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// HTTP/2 and 1.1 by ALPN; client certificates of `client_ca` are verified when offered.
pub(super) fn server_config(live: Arc<LiveCertificate>, client_ca: &Authority) -> Result<Arc<ServerConfig>> {
    config(live, [client_ca.der().clone()], Anonymous::Allowed)
}

/// The same, but nobody comes in without a client certificate.
pub(super) fn strict_server_config(live: Arc<LiveCertificate>, client_ca: &Authority) -> Result<Arc<ServerConfig>> {
    config(live, [client_ca.der().clone()], Anonymous::Refused)
}

/// The same for the kubelet's API; `client_ca` is PEM. While `live` is empty, handshakes fail.
pub fn server_config_of(live: Arc<LiveCertificate>, client_ca: &str) -> Result<Arc<ServerConfig>> {
    let roots = CertificateDer::pem_slice_iter(client_ca.as_bytes()).collect::<Result<Vec<_>, _>>();
    config(live, roots.context("parsing the client CA")?, Anonymous::Allowed)
}

/// Clients without a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Anonymous {
    Allowed,
    Refused,
}

fn config(
    live: Arc<LiveCertificate>,
    client_cas: impl IntoIterator<Item = CertificateDer<'static>>,
    anonymous: Anonymous,
) -> Result<Arc<ServerConfig>> {
    let mut roots = RootCertStore::empty();
    for ca in client_cas {
        roots.add(ca).context("trusting the client CA")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = if anonymous == Anonymous::Allowed { verifier.allow_unauthenticated() } else { verifier };
    let verifier = verifier.build().context("building the client verifier")?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(FlooredClock))
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(live);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(Arc::new(config))
}
