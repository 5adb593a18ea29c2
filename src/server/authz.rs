//! Authorization: Node authorizer, then RBAC (upstream's chain). 403 texts as kubectl users know them.

use crate::server::request::{RequestInfo, UserInfo};
use crate::status::Result;
use async_trait::async_trait;

/// Decides one request. The first authorizer in the chain that allows wins; a deny ends the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

#[async_trait]
pub trait Authorizer: Send + Sync {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Result<Decision>;
}
