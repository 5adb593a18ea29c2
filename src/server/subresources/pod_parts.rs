//! `pods/ephemeralcontainers` and `pods/resize`: writes that change only their part of the pod's spec.

use super::{body, wanted};
use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::server::api::{Incoming, Patch, answer_response};
use crate::server::registry::{Answer, Call, Change, Part};
use crate::status::{Result, Status};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

const GVK: (&str, &str, &str) = ("", "v1", "Pod");

/// A part of a pod: how the given pod changes the stored one.
pub struct PodPart {
    name: &'static str,
    merge: fn(stored: &Object, given: &Object) -> Result<Object>,
}

pub const EPHEMERAL_CONTAINERS: PodPart = PodPart { name: "ephemeralcontainers", merge: ephemeral };
pub const RESIZE: PodPart = PodPart { name: "resize", merge: resized };

pub async fn serve(mut call: Call, incoming: Incoming, pod_part: PodPart) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    let part = Part::Subresource(pod_part.name);
    let strategy = call.kind().strategy;
    let answer = match incoming.info.verb.as_str() {
        "get" => Answer::of(call.load(&name).await?.1),
        "update" => {
            let mut given = body(&mut call, incoming.request, GVK).await?;
            strategy.default(&mut given);
            let mut make = |old: Option<&Object>| Ok((merged(&pod_part, old, &given)?, false));
            call.change(&name, Change { part, make: &mut make, create: false }).await?
        }
        _ => {
            let patch = Patch::read(incoming.request, GVK, super::typed(GVK)).await?;
            let (validation, mut warnings) = (call.write.validation, Vec::new());
            let mut make = |old: Option<&Object>| {
                let current = old.cloned().unwrap_or_default();
                let mut given = patch.patched(&current, super::typed(GVK), validation, &mut warnings)?;
                strategy.default(&mut given);
                Ok((merged(&pod_part, old, &given)?, false))
            };
            let answer = call.change(&name, Change { part, make: &mut make, create: false }).await?;
            call.warnings.extend(warnings);
            answer
        }
    };
    answer_response(&call, answer, wanted)
}

fn merged(part: &PodPart, old: Option<&Object>, given: &Object) -> Result<Object> {
    let stored = old.cloned().unwrap_or_default();
    let mut new = (part.merge)(&stored, given)?;
    for field in ["name", "uid", "resourceVersion"] {
        if let Some(value) = given.at(&["metadata", field]) {
            new.set_at(&["metadata", field], value.clone());
        }
    }
    Ok(new)
}

/// Ephemeral containers are only added: those that exist stay as they are (KEP-277).
fn ephemeral(stored: &Object, given: &Object) -> Result<Object> {
    let list =
        |pod: &Object| pod.at(&["spec", "ephemeralContainers"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, after) = (list(stored), list(given));
    let mut errors = Errors::new();
    let path = Path::new("spec").child("ephemeralContainers");
    for old in &before {
        match after.iter().position(|c| c.get("name") == old.get("name")) {
            None => errors.forbidden(&path, "existing ephemeral containers may not be removed"),
            Some(i) if after[i] != *old => {
                let name = old.str_at(&["name"]);
                errors
                    .forbidden(&path.index(i), format!("existing ephemeral containers \"{name}\" may not be changed"));
            }
            Some(_) => {}
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Pod", stored.name(), errors));
    }
    let mut new = stored.clone();
    if !after.is_empty() {
        new.set_at(&["spec", "ephemeralContainers"], json!(after));
    }
    Ok(new)
}

/// Resources and resize policies of containers change, matched by name (KEP-1287).
fn resized(stored: &Object, given: &Object) -> Result<Object> {
    let mut new = stored.clone();
    for list in ["containers", "initContainers"] {
        let wanted = given.at(&["spec", list]).and_then(Value::as_array).cloned().unwrap_or_default();
        let containers = new.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(same) = wanted.iter().find(|w| w.get("name") == container.get("name")) else { continue };
            for field in ["resources", "resizePolicy"] {
                if let Some(value) = same.get(field) {
                    container[field] = value.clone();
                }
            }
        }
    }
    if let Some(resources) = given.at(&["spec", "resources"]) {
        new.set_at(&["spec", "resources"], resources.clone());
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_changes() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "nodeName": "n", "containers": [{"name": "a", "image": "x", "resources": {}}],
            "ephemeralContainers": [{"name": "e", "image": "y"}],
        }});
        let mut given = pod.clone();
        given.set_at(&["spec", "nodeName"], "other".into());
        given["spec"]["containers"][0] = json!({"name": "a", "image": "z", "resources": {"requests": {"cpu": "1"}}});
        let new = merged(&RESIZE, Some(&pod), &given).unwrap();
        assert_eq!(new["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "1"}}));
        assert_eq!(
            (new["spec"]["containers"][0]["image"].as_str(), new["spec"]["nodeName"].as_str()),
            (Some("x"), Some("n"))
        );
        given["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "y"}, {"name": "f"}]);
        let new = merged(&EPHEMERAL_CONTAINERS, Some(&pod), &given).unwrap();
        assert_eq!(new["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
        assert_eq!(new["spec"]["containers"], pod["spec"]["containers"]);
        given["spec"]["ephemeralContainers"] = json!([{"name": "f"}]);
        assert!(merged(&EPHEMERAL_CONTAINERS, Some(&pod), &given).is_err());
    }
}
