//! Authentication: x509, service-account JWTs, anonymous.

use crate::object::Object;
use crate::server::request::UserInfo;
use crate::status::Result;
use async_trait::async_trait;

/// Set in the request's extensions by the TLS listener: the verified client certificate's subject.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// CN.
    pub user: String,
    /// O.
    pub groups: Vec<String>,
    /// SHA-256 of the certificate, hex (`authentication.kubernetes.io/credential-id` is `X509SHA256=<this>`).
    pub fingerprint: String,
}

/// Set in the request's extensions by the in-process transport: who the component is. Never taken from a header.
#[derive(Clone, Debug)]
pub struct LocalIdentity(pub UserInfo);

/// Bearer tokens (service-account JWTs; bootstrap tokens later).
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `Ok(None)`: not a token of this kind. `audiences` empty: the API server's own.
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<(UserInfo, Vec<String>)>>;
}

/// Makes service-account tokens (`serviceaccounts/token`).
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// Check a decoded `TokenRequest` (bound object, expiry, audiences) for this ServiceAccount and answer it with
    /// `status.token` and `status.expirationTimestamp` filled in.
    async fn issue(&self, user: &UserInfo, service_account: &Object, request: Object) -> Result<Object>;
}
