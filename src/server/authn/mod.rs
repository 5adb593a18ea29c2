//! Authentication: x509, service-account JWTs, bootstrap tokens, anonymous; impersonation on top (upstream's order).

pub mod bootstrap_token;
pub mod discovery;
mod impersonate;
mod request;
pub mod review;
mod service_account;
pub mod token;

pub use impersonate::impersonate;
pub use request::authenticate;
pub use service_account::ServiceAccounts;

use crate::object::Object;
use crate::server::request::UserInfo;
use crate::status::Result;
pub use crate::wire::peer::PeerCertificate;
use async_trait::async_trait;

/// Set in the request's extensions by the in-process transport: who the component is. Never taken from a header.
#[derive(Clone, Debug)]
pub struct LocalIdentity(pub UserInfo);

/// Bearer tokens (service-account JWTs, bootstrap tokens).
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `Ok(None)`: not a token of this kind. `audiences` empty: the API server's own. Gives the user and those of the
    /// audiences asked for that the token has.
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<(UserInfo, Vec<String>)>>;
}

/// Makes service-account tokens (`serviceaccounts/token`).
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// Check a decoded `TokenRequest` (bound object, expiry, audiences) for this ServiceAccount and answer it with
    /// `status.token` and `status.expirationTimestamp` filled in.
    async fn issue(&self, user: &UserInfo, service_account: &Object, request: Object) -> Result<Object>;
}

/// The user name prefix of service accounts: `system:serviceaccount:<namespace>:<name>`.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Namespace and name of a service account's user name.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Groups every service account of a namespace is in.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// A service account as an in-process component uses it.
pub fn service_account_user(namespace: &str, name: &str) -> UserInfo {
    let mut groups = service_account_groups(namespace);
    groups.push(UserInfo::AUTHENTICATED.to_owned());
    UserInfo { name: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"), groups, ..Default::default() }
}

/// Add `system:authenticated`, unless the user is anonymous or says already which of the two it is.
fn with_authenticated_group(mut user: UserInfo) -> UserInfo {
    let decided = user.is_in(UserInfo::AUTHENTICATED) || user.is_in(UserInfo::UNAUTHENTICATED);
    if user.name != UserInfo::ANONYMOUS && !decided {
        user.groups.push(UserInfo::AUTHENTICATED.to_owned());
    }
    user
}
