//! Who is at the other end of a TLS connection.

use rustls_pki_types::CertificateDer;

/// Set in the request's extensions by the TLS listener: the verified client certificate's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// CN.
    pub user: String,
    /// O.
    pub groups: Vec<String>,
    /// SHA-256 of the certificate, hex (`authentication.kubernetes.io/credential-id` is `X509SHA256=<this>`).
    pub fingerprint: String,
}

impl PeerCertificate {
    /// The subject of a certificate that TLS has verified. None if it cannot be parsed or names no user.
    pub fn from_der(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let user = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        if user.is_empty() {
            return None;
        }
        let groups = parsed.subject().iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let fingerprint = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Some(PeerCertificate { user, groups, fingerprint })
    }
}
