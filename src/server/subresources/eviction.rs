//! `pods/eviction`: a deletion that PodDisruptionBudgets may refuse (policy/v1 Eviction).

use super::{body, done, reply, wanted};
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;
use crate::server::admission::Reader;
use crate::server::api::Incoming;
use crate::server::registry::{Call, Change, Part};
use crate::server::request::options::DeleteOptions;
use crate::status::{Cause, Details, Reason, Result, Status, Success};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

const GVK: (&str, &str, &str) = ("policy", "v1", "Eviction");
const TARGET: &str = "DisruptionTarget";
/// Pods that a budget may wait for at most; beyond, its controller is too far behind.
const DISRUPTED_MAX: usize = 2000;

pub async fn serve(mut call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let wanted = wanted(&incoming)?;
    let name = incoming.info.name.clone();
    let eviction = body(&mut call, incoming.request, GVK).await?;
    if !eviction.name().is_empty() && eviction.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = eviction.get("deleteOptions").cloned().unwrap_or_default();
    let mut options = DeleteOptions::parse(&incoming.query, &options)?;
    options.dry_run |= call.write.dry_run;
    let (_, pod) = call.load(&name).await?;
    if !ignores_budgets(&pod) {
        check_budgets(&call, &pod, &options).await?;
    }
    let seen = pod.str_at(&["metadata", "resourceVersion"]);
    if !options.dry_run && options.resource_version.as_deref().is_none_or(|wanted| wanted == seen) {
        mark(&call, &pod).await?;
        // The version that was asked for has been seen, and is another one by our own hand.
        options.resource_version = None;
    }
    call.delete(&name, &options).await?;
    reply(&call, &done(), Success::Created, wanted)
}

/// The pod says why it goes, for whoever counts failures (KEP-3329). A pod that says so already, or has gone meanwhile,
/// is left as it is.
async fn mark(call: &Call, pod: &Object) -> Result<()> {
    let is_target = |c: &Value| c["type"] == TARGET && c["status"] == "True";
    let conditions = |pod: &Object| pod.at(&["status", "conditions"]).and_then(Value::as_array).cloned();
    if pod.is_deleting() || conditions(pod).iter().flatten().any(is_target) {
        return Ok(());
    }
    let (mut call, now, uid) = (call.clone(), call.now(), pod.uid().to_owned());
    let mut make = |old: Option<&Object>| {
        let mut new = old.cloned().unwrap_or_default();
        if new.uid() != uid {
            return Err(Status::modified("", "pods", new.name()));
        }
        let mut list = conditions(&new).unwrap_or_default();
        list.retain(|c| c["type"] != TARGET);
        list.push(json!({"type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now}));
        new.set_at(&["status", "conditions"], list.into());
        Ok((new, false))
    };
    let part = Part::Status;
    call.change(pod.name(), Change { part, make: &mut make, create: false }).await.map(drop)
}

/// Pods that no budget protects: finished, never started, or going already.
fn ignores_budgets(pod: &Object) -> bool {
    matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed" | "Pending") || pod.is_deleting()
}

async fn check_budgets(call: &Call, pod: &Object, options: &DeleteOptions) -> Result<()> {
    let budgets = call.api.registry().list("policy", "poddisruptionbudgets", pod.namespace()).await?;
    let covers = |budget: &&Object| {
        let selector = LabelSelector::from_object(budget.at(&["spec", "selector"]));
        selector.is_ok_and(|s| s.matches_labels(pod.labels()))
    };
    let covering: Vec<&Object> = budgets.iter().filter(covers).collect();
    match covering.as_slice() {
        [] => Ok(()),
        [budget] => spend(call, budget, pod, options).await,
        _ => Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}

/// Take one disruption from a budget, or refuse.
async fn spend(call: &Call, budget: &Object, pod: &Object, options: &DeleteOptions) -> Result<()> {
    let number = |path: &[&str]| budget.at(path).and_then(Value::as_i64).unwrap_or(0);
    let observed = number(&["status", "observedGeneration"]);
    if observed < number(&["metadata", "generation"]) {
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        let cause = format!("The disruption budget {} is still being processed by the server.", budget.name());
        return Err(refused(why, cause, 10));
    }
    let ready = pod.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    let ready = ready.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let healthy = number(&["status", "currentHealthy"]) >= number(&["status", "desiredHealthy"]);
    let always = budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    // A pod that is not ready does not count as available: evicting it disrupts nothing.
    if !ready && (always || (healthy && number(&["status", "desiredHealthy"]) > 0)) {
        return Ok(());
    }
    let allowed = number(&["status", "disruptionsAllowed"]);
    if allowed <= 0 {
        let cause = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            budget.name(),
            number(&["status", "desiredHealthy"]),
            number(&["status", "currentHealthy"]),
        );
        return Err(refused("Cannot evict pod as it would violate the pod's disruption budget.", cause, 0));
    }
    let waiting = budget.at(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, |map| map.len());
    if waiting > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden("policy", "poddisruptionbudgets", budget.name(), why));
    }
    if options.dry_run {
        return Ok(());
    }
    // The controller will count again; until it has, two evictions must not spend the same disruption.
    let mut update = call.clone();
    let registry = call.api.registry();
    update.served = registry.served("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::no_such_path)?;
    let (pod_name, now) = (pod.name().to_owned(), call.now());
    let mut make = |old: Option<&Object>| {
        let mut new = old.cloned().unwrap_or_default();
        let left = new.at(&["status", "disruptionsAllowed"]).and_then(Value::as_i64).unwrap_or(0);
        if left <= 0 {
            return Err(refused("Cannot evict pod as it would violate the pod's disruption budget.", String::new(), 0));
        }
        new.set_at(&["status", "disruptionsAllowed"], (left - 1).into());
        new.set_at(&["status", "disruptedPods", &pod_name], now.clone().into());
        Ok((new, false))
    };
    update.change(budget.name(), Change { part: Part::Status, make: &mut make, create: false }).await?;
    Ok(())
}

fn refused(message: &str, cause: String, retry_after_seconds: u32) -> Status {
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message: cause, field: String::new() };
    let details = Details { causes: vec![cause], retry_after_seconds, ..Default::default() };
    Status::new(Reason::TooManyRequests, message).with_details(details)
}
