//! Authorization: Node authorizer, then RBAC (upstream's chain). 403 texts as kubectl users know them.

pub mod aggregate;
mod follow;
pub mod graph;
pub mod node;
pub mod rbac;
pub mod references;
pub mod review;
pub mod rule;

use crate::object::Object;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Details, Reason, Result, Status};
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

/// The 403 of a request that nobody allowed, in upstream's words.
pub fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> Status {
    let mut why = if info.is_resource {
        let slash = if info.subresource.is_empty() { "" } else { "/" };
        let place = match info.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!(
            "User {:?} cannot {} resource \"{}{slash}{}\" in API group {:?} {place}",
            user.name, info.verb, info.resource, info.subresource, info.group
        )
    } else {
        format!("User {:?} cannot {} path {:?}", user.name, info.verb, info.path)
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    if info.is_resource {
        return Status::forbidden(&info.group, &info.resource, &info.name, why);
    }
    Status::new(Reason::Forbidden, format!("forbidden: {why}")).with_details(Details::default())
}

/// Reasons of all authorizers without an opinion, as upstream's union joins them.
pub fn join_reasons(reasons: impl IntoIterator<Item = String>) -> String {
    reasons.into_iter().filter(|r| !r.is_empty()).collect::<Vec<_>>().join("\n")
}
