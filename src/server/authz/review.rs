//! SubjectAccessReview and its self and local forms, and SelfSubjectRulesReview: answered, never stored.

use super::{Authorizer, Decision};
use crate::object::{Object, ObjectExt};
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Result, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const GROUP: &str = "authorization.k8s.io";

/// Answer a SubjectAccessReview: may the user in `spec` do this?
pub async fn subject_access_review(authorizer: &dyn Authorizer, review: Object) -> Result<Object> {
    let user = user_of_spec("SubjectAccessReview", &review)?;
    answer(authorizer, "SubjectAccessReview", &user, review).await
}

/// The same, with everything in one namespace (that of the request).
pub async fn local_subject_access_review(
    authorizer: &dyn Authorizer,
    namespace: &str,
    review: Object,
) -> Result<Object> {
    let kind = "LocalSubjectAccessReview";
    let inside = review.str_at(&["spec", "resourceAttributes", "namespace"]);
    if review.at(&["spec", "nonResourceAttributes"]).is_some_and(|v| !v.is_null()) {
        return Err(invalid(kind, "spec.nonResourceAttributes", "disallowed on this kind of request"));
    }
    if inside != namespace {
        let why = format!("must match metadata.namespace: {namespace}");
        return Err(invalid(kind, "spec.resourceAttributes.namespace", &why));
    }
    let user = user_of_spec(kind, &review)?;
    answer(authorizer, kind, &user, review).await
}

/// May the caller do this?
pub async fn self_subject_access_review(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    review: Object,
) -> Result<Object> {
    answer(authorizer, "SelfSubjectAccessReview", user, review).await
}

/// Everything the caller may do in a namespace (advisory).
pub async fn self_subject_rules_review(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    mut review: Object,
) -> Result<Object> {
    let namespace = review.str_at(&["spec", "namespace"]).to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules(user, &namespace).await?;
    let status = json!({"resourceRules": rules.resource, "nonResourceRules": rules.non_resource, "incomplete": rules.incomplete});
    review.set_at(&["status"], status);
    Ok(review)
}

async fn answer(authorizer: &dyn Authorizer, kind: &str, user: &UserInfo, mut review: Object) -> Result<Object> {
    let info = request_of_spec(kind, &review)?;
    let mut status = match authorizer.authorize(user, &info).await {
        Ok(Decision::Allow { reason }) => json!({"allowed": true, "reason": reason}),
        Ok(Decision::Deny { reason }) => json!({"allowed": false, "denied": true, "reason": reason}),
        Ok(Decision::NoOpinion { reason }) => json!({"allowed": false, "reason": reason}),
        Err(error) => json!({"allowed": false, "evaluationError": error.message}),
    };
    if status["reason"] == "" {
        status.remove_at(&["reason"]);
    }
    review.set_at(&["status"], status);
    Ok(review)
}

fn user_of_spec(kind: &str, review: &Object) -> Result<UserInfo> {
    let strings = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = review.at(&["spec", "extra"]).and_then(Value::as_object);
    let extra: BTreeMap<_, _> =
        extra.into_iter().flatten().map(|(k, v)| (k.to_lowercase(), strings(Some(v)))).collect();
    let user = UserInfo {
        name: review.str_at(&["spec", "user"]).to_owned(),
        uid: review.str_at(&["spec", "uid"]).to_owned(),
        groups: strings(review.at(&["spec", "groups"])),
        extra,
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(invalid(kind, "spec.user", "at least one of user or group must be specified"));
    }
    Ok(user)
}

/// The request that `spec` describes: exactly one of resource and non-resource attributes.
fn request_of_spec(kind: &str, review: &Object) -> Result<RequestInfo> {
    let part = |name| review.at(&["spec", name]).filter(|v| v.is_object());
    let text = |value: &Value, field: &str| value.str_at(&[field]).to_owned();
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(_), Some(_)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            Err(invalid(kind, "spec.nonResourceAttributes", why))
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(invalid(kind, "spec.resourceAttributes", why))
        }
        (Some(resource), None) => Ok(RequestInfo {
            is_resource: true,
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            namespace: text(resource, "namespace"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            name: text(resource, "name"),
            field_selector: field_selector(resource),
            ..Default::default()
        }),
        (None, Some(path)) => {
            Ok(RequestInfo { path: text(path, "path"), verb: text(path, "verb"), ..Default::default() })
        }
    }
}

/// `fieldSelector.rawSelector`, or its `requirements` where they are equalities.
fn field_selector(resource: &Value) -> String {
    let raw = resource.str_at(&["fieldSelector", "rawSelector"]);
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let requirements = resource.at(&["fieldSelector", "requirements"]).and_then(Value::as_array);
    let equality = |r: &Value| {
        let values = r.get("values")?.as_array()?;
        let [value] = values.as_slice() else { return None };
        (r.str_at(&["operator"]) == "In").then(|| format!("{}={}", r.str_at(&["key"]), value.as_str().unwrap_or("")))
    };
    requirements.into_iter().flatten().filter_map(equality).collect::<Vec<_>>().join(",")
}

fn invalid(kind: &str, path: &str, why: &str) -> Status {
    let mut errors = crate::field::Errors::new();
    errors.invalid(&crate::field::Path::new(path), "", why);
    Status::invalid(GROUP, kind, "", errors)
}
