//! `pods/binding` and the older `bindings`: a scheduler puts a pod on a node, once.

use super::{body, done, reply, wanted};
use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::server::api::Incoming;
use crate::server::registry::{Call, Change, Part, Registry};
use crate::status::{Result, Status, Success};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

const GVK: (&str, &str, &str) = ("", "v1", "Binding");

pub async fn of_pod(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    let binding = body(&mut call, incoming.request, GVK).await?;
    if !binding.name().is_empty() && binding.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    bind(&mut call, &name, &binding).await?;
    reply(&call, &done(), Success::Created, wanted)
}

/// `POST …/bindings`: the pod is named in the body.
pub async fn of_namespace(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let binding = body(&mut call, incoming.request, GVK).await?;
    let registry: &Arc<Registry> = call.api.registry();
    call.served = registry.served("", "v1", "pods").ok_or_else(Status::no_such_path)?;
    let name = binding.name().to_owned();
    bind(&mut call, &name, &binding).await?;
    reply(&call, &done(), Success::Created, wanted)
}

async fn bind(call: &mut Call, name: &str, binding: &Object) -> Result<()> {
    check(binding)?;
    let node = binding.str_at(&["target", "name"]).to_owned();
    let now = call.now();
    let kind = call.kind();
    let conflict = |why: &str| Status::conflict(kind.group, "pods/binding", name, why);
    let mut make = |old: Option<&Object>| {
        let mut pod = old.cloned().unwrap_or_default();
        if !binding.uid().is_empty() && binding.uid() != pod.uid() {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                binding.uid(),
                pod.uid()
            );
            return Err(Status::conflict(kind.group, kind.plural, name, why));
        }
        if pod.is_deleting() {
            return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let bound = pod.str_at(&["spec", "nodeName"]);
        if !bound.is_empty() {
            return Err(conflict(&format!("pod {name} is already assigned to node {bound:?}")));
        }
        let gates = pod.at(&["spec", "schedulingGates"]).and_then(Value::as_array);
        if gates.is_some_and(|g| !g.is_empty()) {
            return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        pod.set_at(&["spec", "nodeName"], node.clone().into());
        for field in ["annotations", "labels"] {
            for (key, value) in binding.at(&["metadata", field]).and_then(Value::as_object).into_iter().flatten() {
                pod.set_at(&["metadata", field, key], value.clone());
            }
        }
        scheduled(&mut pod, &now);
        Ok((pod, false))
    };
    call.change(name, Change { part: Part::Subresource("binding"), make: &mut make, create: false }).await?;
    Ok(())
}

fn check(binding: &Object) -> Result<()> {
    let mut errors = Errors::new();
    let target = Path::new("target");
    let kind = binding.str_at(&["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
    }
    if binding.str_at(&["target", "name"]).is_empty() {
        errors.required(&target.child("name"), "");
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Binding", binding.name(), errors)) }
}

/// Condition PodScheduled=True.
fn scheduled(pod: &mut Object, now: &str) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let mut conditions: Vec<Value> =
        pod.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    match conditions.iter_mut().find(|c| c.get("type") == condition.get("type")) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    pod.set_at(&["status", "conditions"], conditions.into());
}
