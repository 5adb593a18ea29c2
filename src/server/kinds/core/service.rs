//! Service (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;
use serde_json::json;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "proxy",
            verbs: &["create", "delete", "get", "patch", "update"],
            kind: Some(("", "v1", "ServiceProxyOptions")),
        },
        STATUS,
    ],
    storage: "services/specs",
    selectable: &["spec.clusterIP", "spec.type"],
    columns: &[
        Column::NAME,
        text("Type"),
        text("Cluster-IP"),
        text("External-IP"),
        text("Port(s)"),
        Column::AGE,
        SELECTOR,
    ],
    strategy: &Service,
    ..Kind::BASE
};

mod validate;

/// Seconds that a client stays with a backend under `sessionAffinity: ClientIP`.
const AFFINITY_SECONDS: i64 = 10_800;

struct Service;

impl Strategy for Service {
    fn default(&self, service: &mut Object) {
        if let Some(spec) = child(service, "spec") {
            default_spec(spec);
        }
        if service.str_at(&["spec", "type"]) == "LoadBalancer"
            && let Some(balancer) = descend(service, &["status", "loadBalancer"])
        {
            for ingress in items(balancer, "ingress").filter(|i| !is_zero(i, "ip")) {
                default_nil(ingress, "ipMode", "VIP");
            }
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        drop_type_dependents(new, old);
    }

    fn validate(&self, service: &Object, errors: &mut Errors) {
        check(service, errors, validate::service);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, validate::change);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        check(new, errors, validate::status);
    }

    /// Any DNS label since 1.36 (RelaxedServiceNameValidation).
    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::dns_label(name)
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut all = Vec::new();
        if !new.str_at(&["spec", "loadBalancerIP"]).is_empty() {
            all.push("spec.loadBalancerIP is deprecated".to_owned());
        }
        all
    }

    fn row(&self, service: &Object, now: i64) -> Vec<Value> {
        vec![
            service.name().into(),
            string(service, &["spec", "type"]),
            or_none(service.str_at(&["spec", "clusterIP"])),
            external_ip(service).into(),
            or_none(&ports(service)),
            age(service, now),
            labels(service.at(&["spec", "selector"])).into(),
        ]
    }
}

fn default_spec(spec: &mut Value) {
    default_zero(spec, "sessionAffinity", "None");
    default_zero(spec, "type", "ClusterIP");
    match spec.str_at(&["sessionAffinity"]) {
        "None" => _ = spec.remove_at(&["sessionAffinityConfig"]),
        "ClientIP" if int_at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() => {
            spec.set_at(&["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        _ => {}
    }
    for port in items(spec, "ports") {
        default_zero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            default_zero(port, "targetPort", number);
        }
    }
    let kind = spec.str_at(&["type"]).to_owned();
    let external =
        matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !is_zero(spec, "externalIPs"));
    if external {
        default_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default_nil(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_nil(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn external_ip(service: &Object) -> String {
    let listed = service.get("spec").map(|s| list(s, "externalIPs")).unwrap_or_default();
    let mut ips: Vec<String> = listed.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match service.str_at(&["spec", "type"]) {
        "LoadBalancer" => {
            let balancer = load_balancer(service);
            if !balancer.is_empty() {
                ips.insert(0, balancer);
            }
            if ips.is_empty() { "<pending>".to_owned() } else { ips.join(",") }
        }
        "ExternalName" => service.str_at(&["spec", "externalName"]).to_owned(),
        "ClusterIP" | "NodePort" if ips.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => ips.join(","),
        _ => UNKNOWN.to_owned(),
    }
}

/// `80:30080/TCP,53/UDP`
fn ports(service: &Object) -> String {
    let show = |port: &Value| {
        let (number, protocol) = (number(port, &["port"]), port.str_at(&["protocol"]));
        match int_at(port, &["nodePort"]) {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    let ports = service.get("spec").map(|s| list(s, "ports")).unwrap_or_default();
    ports.iter().map(show).collect::<Vec<_>>().join(",")
}

/// What belonged to the old type goes with it, unless this update sets it anew.
fn drop_type_dependents(new: &mut Object, old: &Object) {
    let kind = |service: &Object| service.str_at(&["spec", "type"]).to_owned();
    let (now, before) = (kind(new), kind(old));
    if now == before {
        return;
    }
    let balancer_only = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
    for field in balancer_only.iter().filter(|_| before == "LoadBalancer") {
        if new.at(&["spec", field]) == old.at(&["spec", field]) {
            new.remove_at(&["spec", field]);
        }
    }
    let external = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let has_ips = !list(&new["spec"], "externalIPs").is_empty();
    if external(&before) && !external(&now) && !has_ips {
        let policy = ["spec", "externalTrafficPolicy"];
        if new.at(&policy) == old.at(&policy) {
            new.remove_at(&policy);
        }
    }
    if now == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if new.at(&["spec", field]) == old.at(&["spec", field]) {
                new.remove_at(&["spec", field]);
            }
        }
    }
    if external(&before) && matches!(now.as_str(), "ClusterIP" | "ExternalName") {
        let former: BTreeSet<i64> =
            list(&old["spec"], "ports").iter().filter_map(|p| int_at(p, &["nodePort"])).collect();
        for port in items(&mut new["spec"], "ports") {
            if int_at(port, &["nodePort"]).is_some_and(|p| former.contains(&p)) {
                port.remove_at(&["nodePort"]);
            }
        }
    }
}
