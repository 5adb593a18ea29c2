//! Authorization: Node authorizer, then RBAC (upstream's chain). 403 texts as kubectl users know them.

use crate::object::Object;
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

    /// What this user may do in a namespace, for SelfSubjectRulesReview (advisory).
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Result<Rules> {
        Ok(Rules { incomplete: true, ..Default::default() })
    }
}

/// Rules in the form of `SubjectRulesReviewStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// `{verbs, apiGroups, resources, resourceNames}`
    pub resource: Vec<Object>,
    /// `{verbs, nonResourceURLs}`
    pub non_resource: Vec<Object>,
    pub incomplete: bool,
}
