//! TokenReview and SelfSubjectReview: virtual objects that are answered, never stored.

use super::{TokenAuthenticator, with_authenticated_group};
use crate::object::{Object, ObjectExt};
use crate::server::request::UserInfo;
use crate::status::{Result, Status};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answer a TokenReview.
pub async fn token_review(tokens: &[Arc<dyn TokenAuthenticator>], mut review: Object) -> Result<Object> {
    let token = review.str_at(&["spec", "token"]).to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review.at(&["spec", "audiences"]).and_then(Value::as_array);
    let audiences: Vec<String> =
        audiences.map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default();
    let mut status = json!({"authenticated": false, "user": {}, "error": "invalid bearer token"});
    for authenticator in tokens {
        match authenticator.authenticate(&token, &audiences).await {
            Ok(Some((user, found))) => {
                let user = user_value(&with_authenticated_group(user));
                status = json!({"authenticated": true, "user": user, "audiences": found});
                break;
            }
            Ok(None) => {}
            Err(error) => status["error"] = error.message.into(),
        }
    }
    review.set_at(&["status"], status);
    Ok(review)
}

/// Answer a SelfSubjectReview.
pub fn self_subject_review(user: &UserInfo, mut review: Object) -> Object {
    review.set_at(&["status"], json!({"userInfo": user_value(user)}));
    review
}

/// `authentication.k8s.io/v1 UserInfo`.
pub fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}
