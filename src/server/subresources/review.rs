//! Reviews: questions about users and what they may do. Answered from the chains that requests pass themselves.

use super::{body, reply, wanted};
use crate::object::{Object, ObjectExt};
use crate::server::api::{Api, Incoming};
use crate::server::authz::{Authorizer, Decision};
use crate::server::registry::Call;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::Response;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let kind = call.kind();
    let mut review = body(&mut call, incoming.request, (kind.group, kind.version, kind.kind)).await?;
    let status = match kind.kind {
        "TokenReview" => token_review(&call.api, &review).await?,
        "SelfSubjectReview" => json!({"userInfo": user_object(&call.user)}),
        "SubjectAccessReview" => access_review(&call.api, &reviewed_user(&review)?, &review).await?,
        "LocalSubjectAccessReview" => {
            let namespace = &incoming.info.namespace;
            if review.str_at(&["spec", "resourceAttributes", "namespace"]) != namespace {
                let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
                return Err(Status::bad_request(why));
            }
            access_review(&call.api, &reviewed_user(&review)?, &review).await?
        }
        "SelfSubjectAccessReview" => access_review(&call.api, &call.user, &review).await?,
        "SelfSubjectRulesReview" => rules_review(&call, &review).await?,
        _ => return Err(Status::no_such_path()),
    };
    review.set_at(&["status"], status);
    reply(&call, &review, Success::Created, wanted)
}

/// Who a token belongs to.
async fn token_review(api: &Api, review: &Object) -> Result<Object> {
    let token = review.str_at(&["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(review.at(&["spec", "audiences"]));
    for authenticator in api.tokens() {
        match authenticator.authenticate(token, &audiences).await {
            Ok(Some((user, audiences))) => {
                return Ok(json!({"authenticated": true, "user": user_object(&user), "audiences": audiences}));
            }
            Ok(None) => {}
            Err(error) => return Ok(json!({"user": {}, "error": error.message})),
        }
    }
    Ok(json!({"user": {}}))
}

async fn access_review(api: &Api, user: &UserInfo, review: &Object) -> Result<Object> {
    let info = attributes(review)?;
    Ok(match api.authorize(user, &info).await {
        Ok(Decision::Allow { reason }) => verdict(json!({"allowed": true}), &reason),
        Ok(Decision::Deny { reason }) => verdict(json!({"allowed": false, "denied": true}), &reason),
        Ok(Decision::NoOpinion { reason }) => verdict(json!({"allowed": false}), &reason),
        Err(error) => json!({"allowed": false, "evaluationError": error.message}),
    })
}

fn verdict(mut status: Object, reason: &str) -> Object {
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// The request that a review asks about.
fn attributes(review: &Object) -> Result<RequestInfo> {
    let resource = review.at(&["spec", "resourceAttributes"]).filter(|v| !v.is_null());
    let path = review.at(&["spec", "nonResourceAttributes"]).filter(|v| !v.is_null());
    let text = |attributes: &Value, field: &str| attributes.str_at(&[field]).to_owned();
    match (resource, path) {
        (Some(r), None) => Ok(RequestInfo {
            is_resource: true,
            verb: text(r, "verb"),
            group: text(r, "group"),
            version: text(r, "version"),
            namespace: text(r, "namespace"),
            resource: text(r, "resource"),
            subresource: text(r, "subresource"),
            name: text(r, "name"),
            ..Default::default()
        }),
        (None, Some(p)) => Ok(RequestInfo { path: text(p, "path"), verb: text(p, "verb"), ..Default::default() }),
        _ => {
            let mut errors = crate::field::Errors::new();
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&crate::field::Path::new("spec").child("resourceAttributes"), Value::Null, why);
            Err(Status::invalid("authorization.k8s.io", review.str_at(&["kind"]), "", errors))
        }
    }
}

fn reviewed_user(review: &Object) -> Result<UserInfo> {
    let groups = strings(review.at(&["spec", "groups"]));
    let name = review.str_at(&["spec", "user"]).to_owned();
    if name.is_empty() && groups.is_empty() {
        let mut errors = crate::field::Errors::new();
        let path = crate::field::Path::new("spec").child("user");
        errors.invalid(&path, "", "at least one of user or group must be specified");
        return Err(Status::invalid("authorization.k8s.io", review.str_at(&["kind"]), "", errors));
    }
    let extra = review.at(&["spec", "extra"]).and_then(Value::as_object);
    let extra: BTreeMap<String, Vec<String>> =
        extra.into_iter().flatten().map(|(key, values)| (key.clone(), strings(Some(values)))).collect();
    Ok(UserInfo { name, uid: review.str_at(&["spec", "uid"]).to_owned(), groups, extra })
}

async fn rules_review(call: &Call, review: &Object) -> Result<Object> {
    let namespace = review.str_at(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = call.api.rules(&call.user, namespace).await?;
    Ok(json!({
        "resourceRules": rules.resource, "nonResourceRules": rules.non_resource, "incomplete": rules.incomplete,
    }))
}

/// `authentication.k8s.io` UserInfo.
fn user_object(user: &UserInfo) -> Object {
    let mut object = Map::new();
    object.insert("username".to_owned(), user.name.clone().into());
    if !user.uid.is_empty() {
        object.insert("uid".to_owned(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        object.insert("groups".to_owned(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        object.insert("extra".to_owned(), json!(user.extra));
    }
    object.into()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
