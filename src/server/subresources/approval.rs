//! `certificatesigningrequests/approval`: changes `status.conditions` Approved and Denied, nothing else.

use super::{body, wanted};
use crate::object::{Object, ObjectExt};
use crate::server::api::{Incoming, Patch, answer_response};
use crate::server::registry::{Answer, Call, Change, Part};
use crate::status::Result;
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

const GVK: (&str, &str, &str) = ("certificates.k8s.io", "v1", "CertificateSigningRequest");

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    let now = call.now();
    let part = Part::Subresource("approval");
    let answer = match incoming.info.verb.as_str() {
        "get" => Answer::of(call.load(&name).await?.1),
        "update" => {
            let given = body(&mut call, incoming.request, GVK).await?;
            let mut make = |old: Option<&Object>| Ok((approved(old, &given, &now), false));
            call.change(&name, Change { part, make: &mut make, create: false }).await?
        }
        _ => {
            let patch = Patch::read(incoming.request, GVK, super::typed(GVK)).await?;
            let (validation, mut warnings) = (call.write.validation, Vec::new());
            let mut make = |old: Option<&Object>| {
                let current = old.cloned().unwrap_or_default();
                let given = patch.patched(&current, super::typed(GVK), validation, &mut warnings)?;
                Ok((approved(old, &given, &now), false))
            };
            call.change(&name, Change { part, make: &mut make, create: false }).await?
        }
    };
    answer_response(&call, answer, wanted)
}

/// The stored request with the conditions of the given one.
fn approved(old: Option<&Object>, given: &Object, now: &str) -> Object {
    let mut new = old.cloned().unwrap_or_default();
    for field in ["name", "uid", "resourceVersion"] {
        if let Some(value) = given.at(&["metadata", field]) {
            new.set_at(&["metadata", field], value.clone());
        }
    }
    let mut conditions: Vec<Value> =
        given.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let before =
        old.and_then(|o| o.at(&["status", "conditions"])).and_then(Value::as_array).cloned().unwrap_or_default();
    for condition in &mut conditions {
        let same = before.iter().find(|b| b.get("type") == condition.get("type"));
        let unchanged = same.is_some_and(|b| b.get("status") == condition.get("status"));
        let transition = same.filter(|_| unchanged).and_then(|b| b.get("lastTransitionTime")).cloned();
        for (field, default) in [("lastUpdateTime", None), ("lastTransitionTime", transition)] {
            if condition.get(field).is_none_or(Value::is_null) {
                condition[field] = default.unwrap_or_else(|| now.into());
            }
        }
    }
    new.set_at(&["status", "conditions"], json!(conditions));
    new
}
