//! What may change in a Pod after its creation.

use crate::object::ObjectExt;
use crate::server::kinds::names;
use crate::server::kinds::podspec::{qos, scheduling};
use crate::server::kinds::tree::{keep, list, same};
use crate::server::kinds::view::View;
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// Changed fields that an error names; the rest is only counted.
const SHOWN_CHANGES: usize = 20;

/// A write to the pod itself.
pub fn main(new: &View<'_>, old: &View<'_>) {
    mirror_annotation(new, old);
    let (spec, former) = (new.get("spec"), old.get("spec"));
    for kind in ["containers", "initContainers"] {
        if spec.get(kind).len() != former.get(kind).len() {
            return spec.get(kind).forbidden("pod updates may not add or remove containers");
        }
    }
    if !active_deadline(&spec.get("activeDeadlineSeconds"), &former.get("activeDeadlineSeconds")) {
        return;
    }
    only_added_tolerations(&spec.get("tolerations"), &former.get("tolerations"));
    only_removed_gates(&spec.get("schedulingGates"), &former.get("schedulingGates"));
    let mut rest = spec.value().clone();
    restore_updatable(&mut rest, former.value());
    if !former.get("schedulingGates").is_empty() {
        gated_scheduling(&spec, &former, &mut rest);
    }
    if !same(Some(&rest), Some(former.value())) {
        let changes = changes(former.value(), &rest);
        spec.forbidden(format!("pod updates may not change fields other than {UPDATABLE}\n{changes}"));
    }
}

/// What was allowed to change is as it was.
fn restore_updatable(spec: &mut Value, former: &Value) {
    for kind in ["containers", "initContainers"] {
        let containers = spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, former) in containers.zip(list(former, kind)) {
            keep(container, former, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        keep(spec, former, field);
    }
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(former).is_some_and(|g| g < 0) && grace(spec) == Some(1) {
        keep(spec, former, "terminationGracePeriodSeconds");
    }
}

fn mirror_annotation(new: &View<'_>, old: &View<'_>) {
    let (annotations, former) = (new.at(&["metadata", "annotations"]), old.at(&["metadata", "annotations"]));
    let (mirror, former) = (annotations.get(MIRROR).named(annotations.path().key(MIRROR)), former.get(MIRROR));
    if mirror.value() != former.value() {
        let verb = if former.is_set() { "remove or update" } else { "add" };
        mirror.forbidden(format!("may not {verb} mirror pod annotation"));
    }
}

/// It may be set, and made shorter. False stops the checks.
fn active_deadline(new: &View<'_>, old: &View<'_>) -> bool {
    match (new.int(), old.int()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            new.in_range(0, i32::MAX.into());
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            new.invalid("must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            new.invalid("must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

/// Tolerations stay; new ones may come, and seconds may change.
fn only_added_tolerations(new: &View<'_>, old: &View<'_>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.remove_at(&["tolerationSeconds"]);
        toleration
    };
    let now: Vec<Value> = new.items().map(|t| without_seconds(t.value())).collect();
    if old.items().any(|former| !now.contains(&without_seconds(former.value()))) {
        return new.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
    if new.value() != old.value() {
        scheduling::tolerations(new);
    }
}

fn only_removed_gates(new: &View<'_>, old: &View<'_>) {
    for gate in new.items().map(|g| g.get("name")) {
        if !old.items().any(|former| former.get("name").str() == gate.str()) {
            gate.forbidden(format!("only deletion is allowed, but found new scheduling gate '{}'", gate.str()));
        }
    }
}

/// While gates hold a pod back, where it may run can be narrowed (KEP-3838).
fn gated_scheduling(spec: &View<'_>, former: &View<'_>, rest: &mut Value) {
    let selector = spec.get("nodeSelector");
    if selector.value() != former.get("nodeSelector").value() {
        let kept = |(key, value): (&str, View<'_>)| selector.get(key).value() == value.value();
        if !former.get("nodeSelector").entries().all(kept) {
            selector.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)");
        }
        keep(rest, former.value(), "nodeSelector");
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let (affinity, before) = (spec.at(&["affinity", "nodeAffinity"]), former.at(&["affinity", "nodeAffinity"]));
    if affinity.value() == before.value() {
        return;
    }
    let terms = affinity.get(REQUIRED).get("nodeSelectorTerms");
    let old_terms = before.get(REQUIRED).get("nodeSelectorTerms");
    if !old_terms.is_empty() {
        let narrowed = |(term, old): (View<'_>, View<'_>)| {
            ["matchExpressions", "matchFields"]
                .iter()
                .all(|kind| old.get(kind).items().all(|e| term.get(kind).items().any(|now| now.value() == e.value())))
        };
        if terms.len() != old_terms.len() {
            terms.invalid("no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        } else if !terms.items().zip(old_terms.items()).all(narrowed) {
            terms.invalid("only additions are allowed (no mutations or deletions)");
        }
    }
    if let Some(former) = former.get("affinity").value().as_object() {
        let former = Value::Object(former.clone());
        if let Some(affinity) = rest.get_mut("affinity") {
            keep(affinity, &former, "nodeAffinity");
        } else {
            rest.set_at(&["affinity"], former);
        }
    } else {
        rest.remove_at(&["affinity", "nodeAffinity"]);
    }
}

/// A write to `/status`.
pub fn status(new: &View<'_>, old: &View<'_>) {
    let (status, former) = (new.get("status"), old.get("status"));
    let nominated = status.get("nominatedNodeName");
    if nominated.str() != former.get("nominatedNodeName").str() {
        nominated.format_if_set(names::dns_subdomain);
    }
    if !former.get("qosClass").is_empty() {
        status.get("qosClass").immutable(&former.get("qosClass"));
    }
    let policy = old.at(&["spec", "restartPolicy"]).str();
    for (list, policy) in
        [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")]
    {
        transitions(&status.get(list), &former.get(list), policy, &old.get("spec"));
    }
    for ip in status.get("podIPs").items().map(|ip| ip.get("ip")) {
        crate::server::kinds::rules::ip(&ip);
    }
}

/// A container that is not to be restarted does not come back.
fn transitions(new: &View<'_>, old: &View<'_>, policy: &str, spec: &View<'_>) {
    for (i, former) in old.items().enumerate() {
        let ended = former.at(&["state", "terminated"]);
        let name = former.get("name").str();
        let own = ["containers", "initContainers"].iter().flat_map(|kind| spec.get(kind).items());
        let own = own.filter(|c| c.get("name").str() == name).find_map(|c| c.get("restartPolicy").value().as_str());
        let policy = own.unwrap_or(policy);
        let may_restart = policy == "Always" || (policy == "OnFailure" && ended.get("exitCode").number() != 0);
        if !ended.is_set() || may_restart {
            continue;
        }
        for now in new.items().filter(|s| s.get("name").str() == name && !s.at(&["state", "terminated"]).is_set()) {
            let at = now.get("state").named(new.path().index(i).child("state"));
            at.forbidden("may not be transitioned to non-terminated state");
        }
    }
}

/// A write to `/ephemeralcontainers`: they can only be added.
pub fn ephemeral_containers(new: &View<'_>, old: &View<'_>) {
    if old.at(&["metadata", "annotations"]).get(MIRROR).is_set() {
        let at = new.named(crate::field::Path::new(""));
        return at.forbidden("static pods do not support ephemeral containers");
    }
    let list = new.at(&["spec", "ephemeralContainers"]);
    for former in old.at(&["spec", "ephemeralContainers"]).items() {
        let name = former.get("name").str();
        match list.items().find(|c| c.get("name").str() == name) {
            None => list.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if !same(Some(now.value()), Some(former.value())) => {
                let changes = changes(former.value(), now.value());
                list.forbidden(format!("existing ephemeral containers {name:?} may not be changed\n{changes}"));
            }
            Some(_) => {}
        }
    }
}

/// A write to `/resize`: only cpu and memory of containers and sidecars.
pub fn resize(new: &View<'_>, old: &View<'_>) {
    let whole = new.named(crate::field::Path::new(""));
    if old.at(&["metadata", "annotations"]).get(MIRROR).is_set() {
        return whole.forbidden("static pods cannot be resized");
    }
    let spec = new.get("spec");
    if qos::class(new.value()) != qos::class(old.value()) {
        let class = new.at(&["status", "qosClass"]).str();
        spec.invalid_value(class, "Pod QOS Class may not change as a result of resizing");
    }
    let mut rest = spec.value().clone();
    for kind in ["containers", "initContainers"] {
        for (now, former) in spec.get(kind).items().zip(old.at(&["spec", kind]).items()) {
            resized_container(&now, &former);
        }
        let containers = rest.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, former) in containers.zip(list(old.get("spec").value(), kind)) {
            if kind == "containers" || former.str_at(&["restartPolicy"]) == "Always" {
                for side in ["requests", "limits"] {
                    restore_cpu_and_memory(container, former, side);
                }
            }
            keep(container, former, "resizePolicy");
        }
    }
    if !same(Some(&rest), Some(old.get("spec").value())) {
        spec.forbidden("only cpu and memory resources are mutable");
    }
}

fn restore_cpu_and_memory(container: &mut Value, former: &Value, side: &str) {
    for name in ["cpu", "memory"] {
        let path = ["resources", side, name];
        match former.at(&path).cloned() {
            Some(quantity) => container.set_at(&path, quantity),
            None => _ = container.remove_at(&path),
        }
    }
}

fn resized_container(new: &View<'_>, old: &View<'_>) {
    for (side, text) in [("requests", "resource requests"), ("limits", "resource limits")] {
        let (list, former) = (new.get("resources").get(side), old.get("resources").get(side));
        if former.entries().any(|(name, _)| !list.get(name).is_set()) {
            list.forbidden(format!("{text} cannot be removed"));
        }
    }
}

/// Paths that differ, old and new value, one line each.
fn changes(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    collect(&mut lines, String::new(), old, new);
    let hidden = lines.len().saturating_sub(SHOWN_CHANGES);
    lines.truncate(SHOWN_CHANGES);
    if hidden > 0 {
        lines.push(format!("  … {hidden} more"));
    }
    lines.join("\n")
}

fn collect(lines: &mut Vec<String>, path: String, old: &Value, new: &Value) {
    if same(Some(old), Some(new)) {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value = |map: &'_ serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                collect(lines, child, &value(a), &value(b));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                collect(lines, format!("{path}[{i}]"), a, b);
            }
        }
        _ => {
            lines.push(format!("- {path}: {old}"));
            lines.push(format!("+ {path}: {new}"));
        }
    }
}
