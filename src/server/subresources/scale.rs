//! `scale`: autoscaling/v1 Scale as a view of a workload's replicas.

use super::{body, reply, wanted};
use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;
use crate::server::api::{Incoming, Patch};
use crate::server::registry::{Call, Change, Part};
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

const GVK: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    if incoming.info.verb == "get" {
        let (_, object) = call.load(&name).await?;
        return reply(&call, &scale_of(&object), Success::Ok, wanted);
    }
    let part = Part::Subresource("scale");
    let answer = if incoming.info.verb == "update" {
        let scale = body(&mut call, incoming.request, GVK).await?;
        let mut make = |old: Option<&Object>| Ok((scaled(old, &scale)?, false));
        call.change(&name, Change { part, make: &mut make, create: false }).await?
    } else {
        let typed = super::typed(GVK);
        let patch = Patch::read(incoming.request, GVK, typed).await?;
        let (force, validation, mut warnings) = (call.write.force, call.write.validation, Vec::new());
        if !patch.is_apply() {
            call.refuse_force()?;
        }
        let (api_version, now) = (crate::object::api_version(GVK.0, GVK.1), call.now());
        let owner = call.clone();
        let manager = owner.manager(&api_version, "scale", &now);
        let mut make = |old: Option<&Object>| {
            let current = scale_of(old.unwrap_or(&Value::Null));
            let scale = match typed.filter(|_| patch.is_apply()) {
                Some(typed) => {
                    crate::server::patch::apply::apply(Some(&current), patch.config(), manager, force, typed)?
                }
                None => patch.patched(&current, typed, validation, &mut warnings)?,
            };
            Ok((scaled(old, &scale)?, false))
        };
        let answer = call.change(&name, Change { part, make: &mut make, create: false }).await?;
        call.warnings.extend(warnings);
        answer
    };
    reply(&call, &scale_of(&answer.object), Success::Ok, wanted)
}

/// The Scale of a workload.
fn scale_of(object: &Object) -> Object {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", field]) {
            metadata[field] = value.clone();
        }
    }
    let number = |path: &[&str]| object.at(path).and_then(Value::as_i64).unwrap_or(0);
    let selector = object.at(&["spec", "selector"]);
    // ReplicationControllers select by a plain map.
    let is_plain =
        selector.and_then(Value::as_object).is_some_and(|s| s.values().all(Value::is_string) && !s.is_empty());
    let selector = if is_plain {
        LabelSelector::from_map(selector)
    } else {
        LabelSelector::from_object(selector).unwrap_or_default()
    };
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {}, "status": {"replicas": number(&["status", "replicas"])},
    });
    // Both are omitted when empty, as upstream's type has them.
    if number(&["spec", "replicas"]) != 0 {
        scale.set_at(&["spec", "replicas"], number(&["spec", "replicas"]).into());
    }
    if !selector.is_everything() {
        scale.set_at(&["status", "selector"], selector.to_string().into());
    }
    scale
}

/// The workload with the replicas of a Scale. A resourceVersion in the Scale must be the workload's.
fn scaled(old: Option<&Object>, scale: &Object) -> Result<Object> {
    let mut new = old.cloned().unwrap_or_default();
    let replicas = scale.at(&["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("replicas");
        errors.invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(GVK.0, GVK.2, scale.name(), errors));
    }
    if !scale.name().is_empty() {
        new.set_at(&["metadata", "name"], scale.name().into());
    }
    if !scale.resource_version().is_empty() {
        new.set_at(&["metadata", "resourceVersion"], scale.resource_version().into());
    }
    new.set_at(&["spec", "replicas"], replicas.into());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_back() {
        let deployment = json!({
            "metadata": {"name": "d", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2},
        });
        let scale = scale_of(&deployment);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
        let rc = json!({"metadata": {"name": "r"}, "spec": {"selector": {"app": "web"}}});
        assert_eq!(scale_of(&rc)["status"]["selector"], json!("app=web"));
        let new = scaled(Some(&deployment), &json!({"spec": {"replicas": 0}})).unwrap();
        assert_eq!(new["spec"]["replicas"], json!(0));
        assert_eq!(new["metadata"]["resourceVersion"], json!("5"));
        assert!(scaled(Some(&deployment), &json!({"spec": {"replicas": -1}})).is_err());
    }
}
