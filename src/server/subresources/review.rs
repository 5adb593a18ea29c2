//! Reviews: questions about users and what they may do, answered by the chains that requests pass themselves.

use super::{body, reply, wanted};
use crate::object::ObjectExt;
use crate::server::api::Incoming;
use crate::server::registry::Call;
use crate::server::{authn, authz};
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::Response;

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let kind = call.kind();
    let mut review = body(&mut call, incoming.request, (kind.group, kind.version, kind.kind)).await?;
    review.remove_at(&["status"]);
    let (api, user) = (&*call.api, &*call.user);
    let answer = match kind.kind {
        "TokenReview" => authn::review::token_review(api.tokens(), review).await?,
        "SelfSubjectReview" => authn::review::self_subject_review(user, review),
        "SubjectAccessReview" => authz::review::subject_access_review(api, review).await?,
        "LocalSubjectAccessReview" => {
            authz::review::local_subject_access_review(api, &call.info.namespace, review).await?
        }
        "SelfSubjectAccessReview" => authz::review::self_subject_access_review(api, user, review).await?,
        "SelfSubjectRulesReview" => authz::review::self_subject_rules_review(api, user, review).await?,
        _ => return Err(Status::no_such_path()),
    };
    reply(&call, &answer, Success::Created, wanted)
}
