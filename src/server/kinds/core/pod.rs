//! Pod (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;
use serde_json::json;

pub static KIND: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "attach", verbs: &["create", "get"], kind: Some(("", "v1", "PodAttachOptions")) },
        Subresource { name: "binding", verbs: &["create"], kind: Some(("", "v1", "Binding")) },
        Subresource { name: "ephemeralcontainers", verbs: &["get", "patch", "update"], kind: None },
        Subresource { name: "eviction", verbs: &["create"], kind: Some(("policy", "v1", "Eviction")) },
        Subresource { name: "exec", verbs: &["create", "get"], kind: Some(("", "v1", "PodExecOptions")) },
        Subresource { name: "log", verbs: &["get"], kind: None },
        Subresource { name: "portforward", verbs: &["create", "get"], kind: Some(("", "v1", "PodPortForwardOptions")) },
        Subresource {
            name: "proxy",
            verbs: &["create", "delete", "get", "patch", "update"],
            kind: Some(("", "v1", "PodProxyOptions")),
        },
        Subresource { name: "resize", verbs: &["get", "patch", "update"], kind: None },
        STATUS,
    ],
    storage: "pods",
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
    columns: &[
        Column::NAME,
        text("Ready"),
        text("Status"),
        text("Restarts"),
        Column::AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    strategy: &Pod,
    ..Kind::BASE
};

mod row;
mod update;

struct Pod;

impl Strategy for Pod {
    fn default(&self, pod: &mut Object) {
        defaults::pod(pod);
        if let Some(status) = child(pod, "status") {
            both_ip_fields(status, "podIP", "podIPs");
            both_ip_fields(status, "hostIP", "hostIPs");
        }
    }

    fn prepare_create(&self, pod: &mut Object) {
        let mut status = json!({"phase": "Pending", "qosClass": podspec::qos::class(pod)});
        if !list(&pod["spec"], "schedulingGates").is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
                "lastTransitionTime": null, "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        pod.set_at(&["status"], status);
    }

    fn prepare_status_update(&self, new: &mut Object, old: &Object) {
        // The server computed it; a kubelet that leaves it out does not remove it.
        let Some(status) = child_or_new(new, "status") else { return };
        if is_zero(status, "qosClass")
            && let Some(class) = old.at(&["status", "qosClass"])
        {
            default_zero(status, "qosClass", class.clone());
        }
    }

    fn grace(&self, pod: &Object, requested: Option<u64>) -> Grace {
        let finished = matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded");
        if pod.str_at(&["spec", "nodeName"]).is_empty() || finished {
            return Grace::Seconds(0);
        }
        if let Some(seconds) = requested {
            return Grace::Seconds(seconds);
        }
        // A negative period in the spec means as soon as possible, but by the kubelet.
        let seconds = int_at(pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(0);
        Grace::Seconds(u64::try_from(seconds).unwrap_or(1))
    }

    fn selectable_value(&self, pod: &Object, field: &str) -> Option<String> {
        match field {
            "spec.hostNetwork" => Some(bool_at(pod, &["spec", "hostNetwork"]).to_string()),
            "status.podIPs" => {
                let ips = pod.get("status").map(|s| list(s, "podIPs")).unwrap_or_default();
                Some(ips.iter().map(|ip| ip.str_at(&["ip"])).collect::<Vec<_>>().join(","))
            }
            _ => None,
        }
    }

    fn validate(&self, pod: &Object, errors: &mut Errors) {
        check(pod, errors, |pod| {
            let spec = pod.get("spec");
            podspec::pod_spec(&spec, Some(pod.at(&["metadata", "name"]).str()));
            if spec.get("serviceAccountName").is_empty() {
                no_tokens(&spec);
            }
            let mirror = pod.at(&["metadata", "annotations"]).get("kubernetes.io/config.mirror");
            if mirror.is_set() && spec.get("nodeName").is_empty() {
                let path = crate::field::Path::new("metadata").child("annotations").key("kubernetes.io/config.mirror");
                mirror.named(path).invalid("must set spec.nodeName if mirror pod annotation is set");
            }
        });
    }

    fn validate_create(&self, pod: &Object, errors: &mut Errors) {
        check(pod, errors, |pod| {
            let spec = pod.get("spec");
            if !spec.get("ephemeralContainers").is_empty() {
                spec.get("ephemeralContainers").forbidden("cannot be set on create");
            }
            if !spec.get("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
                spec.get("nodeName").forbidden("cannot be set until all schedulingGates have been cleared");
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, update::main);
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, update::status);
    }

    fn validate_subresource(&self, subresource: &str, new: &Object, old: &Object, errors: &mut Errors) {
        match subresource {
            "ephemeralcontainers" => check_change(new, old, errors, update::ephemeral_containers),
            "resize" => check_change(new, old, errors, update::resize),
            _ => {}
        }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        podspec::warnings(new.get("spec").unwrap_or(&Value::Null), "spec")
    }

    fn row(&self, pod: &Object, now: i64) -> Vec<Value> {
        row::row(pod, now)
    }
}

/// The old single address and the list say the same: whichever is set fills the other.
fn both_ip_fields(status: &mut Value, one: &str, many: &str) {
    if let Some(first) = list(status, many).first().and_then(|ip| ip.get("ip")).cloned() {
        if let Some(map) = status.as_object_mut() {
            map.insert(one.to_owned(), first);
        }
    } else if let Some(ip) = status.get(one).and_then(Value::as_str).filter(|ip| !ip.is_empty()) {
        let ips = json!([{ "ip": ip }]);
        default_zero(status, many, ips);
    }
}

/// Tokens are some account's.
fn no_tokens(spec: &View<'_>) {
    for projected in spec.get("volumes").items().map(|v| v.get("projected")) {
        for token in projected.get("sources").items().map(|s| s.get("serviceAccountToken")).filter(View::is_set) {
            token.forbidden("must not be specified when serviceAccountName is not set");
        }
    }
}
