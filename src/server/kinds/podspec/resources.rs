//! Requests and limits: names, quantities, and how they go together.

use super::Context;
use crate::object::ObjectExt;
use crate::quantity::Quantity;
use crate::server::kinds::tree::list;
use crate::server::kinds::view::View;
use crate::server::kinds::{names, rules};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Resources that have no `/` and are known anyway, in quotas or containers.
const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

/// Countable standard resources.
const INTEGER: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Without a domain, or of Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// `vendor.com/device`
fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Requests may be below limits.
fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

/// Any resource.
pub fn resource_name(at: &View<'_>, name: &str) {
    for why in names::qualified_name(name) {
        at.invalid_value(name, why);
    }
    if !name.contains('/') && !STANDARD.contains(&name) && !is_hugepages(name) {
        at.invalid_value(name, "must be a standard resource type or fully qualified");
    }
}

/// A resource that containers can ask for.
pub fn container_resource_name(at: &View<'_>, name: &str) {
    resource_name(at, name);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_hugepages(name) {
            at.invalid_value(name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        at.invalid_value(name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource_name(at: &View<'_>, name: &str) {
    resource_name(at, name);
    if !["cpu", "memory"].contains(&name) && !is_hugepages(name) {
        at.invalid_value(name, "must be cpu, memory or hugepages at pod level");
    }
}

/// A list of quantities by resource name.
pub fn quantities(list: &View<'_>, name_rule: fn(&View<'_>, &str)) {
    for (name, at) in list.entries() {
        name_rule(&at, name);
        quantity_of(&at, name);
        huge_page_multiple(&at, name);
    }
}

/// A quantity of this resource: not negative, whole where it is counted.
pub fn quantity_of(at: &View<'_>, name: &str) {
    let Some(quantity) = rules::non_negative_quantity(at) else { return };
    if (INTEGER.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        at.invalid_value(quantity.to_string(), "must be an integer");
    }
}

fn huge_page_multiple(at: &View<'_>, name: &str) {
    let page = name.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok());
    let (Some(page), Some(quantity)) = (page, at.quantity()) else { return };
    if page.value() <= 0 || quantity.value() % page.value() != 0 {
        at.invalid_value(quantity.to_string(), format!("{quantity} is not positive integer multiple of {name}"));
    }
}

/// `resources` of a container.
pub(super) fn container(resources: &View<'_>, context: &Context<'_>) {
    requirements(resources, container_resource_name);
    claims(&resources.get("claims"), &context.claims);
}

fn requirements(resources: &View<'_>, name_rule: fn(&View<'_>, &str)) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    quantities(&limits, name_rule);
    quantities(&requests, name_rule);
    for (name, at) in requests.entries() {
        let Some(request) = at.quantity() else { continue };
        let limit = limits.get(name).quantity();
        match limit {
            Some(limit) if request != limit && !allows_overcommit(name) => {
                requests.invalid_value(request.to_string(), format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                requests.invalid_value(request.to_string(), why);
            }
            None if !allows_overcommit(name) => limits.required("Limit must be set for non overcommitable resources"),
            _ => {}
        }
    }
    let has = |test: fn(&str) -> bool| [&limits, &requests].iter().any(|l| l.entries().any(|(name, _)| test(name)));
    if has(is_hugepages) && !has(|name| name == "cpu" || name == "memory") {
        resources.forbidden("HugePages require cpu or memory");
    }
}

fn claims(claims: &View<'_>, known: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name").str(), claim.get("request").str());
        if name.is_empty() {
            claim.required("");
            continue;
        }
        claim.get("request").format_if_set(names::dns_label);
        if !seen.insert((name, request)) || (!request.is_empty() && seen.contains(&(name, ""))) {
            claim.duplicate_value(name);
        }
        if !known.contains(name) {
            claim.named(claim.path().clone()).not_found();
        }
    }
}

/// `spec.resources` (KEP-2837): the pod's requests cover its containers', no container's limit exceeds the pod's.
pub(super) fn pod_level(spec: &View<'_>) {
    let resources = spec.get("resources");
    if !resources.is_set() {
        return;
    }
    if resources.get("claims").is_set() {
        resources.get("claims").forbidden("claims cannot be set for Resources at pod-level");
    }
    requirements(&resources, pod_resource_name);
    for (name, at) in resources.get("requests").entries() {
        let Some(request) = at.quantity() else { continue };
        let sum = aggregate(spec.value(), "requests", name);
        if sum > request {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            at.invalid_value(request.to_string(), why);
        }
    }
    for (i, container) in spec.get("containers").items().enumerate() {
        for (name, at) in container.at(&["resources", "limits"]).entries() {
            let (Some(limit), Some(pod)) = (at.quantity(), resources.get("limits").get(name).quantity()) else {
                continue;
            };
            if limit > pod {
                let path = resources.path().child("containers").index(i).key(name).child("limits");
                at.named(path)
                    .invalid_value(limit.to_string(), format!("must be less than or equal to pod limits of {pod}"));
            }
        }
    }
}

/// What the containers ask for together: sums of containers and sidecars, or the largest init container.
pub fn aggregate(spec: &Value, side: &str, name: &str) -> Quantity {
    let of = |container: &Value| quantity_at(container, side, name).unwrap_or_default();
    let mut sidecars = Quantity::default();
    let mut largest_init = Quantity::default();
    for container in list(spec, "initContainers") {
        if container.str_at(&["restartPolicy"]) == "Always" {
            sidecars = sidecars + of(container);
            largest_init = largest_init.max(sidecars);
        } else {
            largest_init = largest_init.max(sidecars + of(container));
        }
    }
    let running = list(spec, "containers").iter().map(of).fold(sidecars, |sum, q| sum + q);
    running.max(largest_init)
}

fn quantity_at(container: &Value, side: &str, name: &str) -> Option<Quantity> {
    container.at(&["resources", side, name])?.as_str()?.parse().ok()
}

/// Defaults of `spec.resources` of a pod that has some (KEP-2837): huge page limits and requests from the
/// containers' sums, requests from limits, limits from the containers' where every one has a limit.
pub fn default_pod_level(spec: &mut Value) {
    let count = |spec: &Value, side: &str| spec.at(&["resources", side]).and_then(Value::as_object).map_or(0, Map::len);
    let (had_requests, had_limits) = (count(spec, "requests") > 0, count(spec, "limits") > 0);
    if !had_requests && !had_limits {
        return;
    }
    for name in named_by_containers(spec, "limits").iter().filter(|n| is_hugepages(n)) {
        if spec.at(&["resources", "requests", name]).is_none() {
            fill(spec, "limits", name, "limits");
        }
    }
    if count(spec, "limits") > 0 {
        for name in named_by_containers(spec, "requests").iter().filter(|n| POD_LEVEL.contains(&n.as_str())) {
            fill(spec, "requests", name, "requests");
        }
        let limits = spec.at(&["resources", "limits"]).and_then(Value::as_object).cloned().unwrap_or_default();
        for (name, limit) in limits {
            if spec.at(&["resources", "requests", &name]).is_none() {
                spec.set_at(&["resources", "requests", &name], limit);
            }
        }
    }
    if had_requests && !had_limits {
        let containers: Vec<Value> =
            ["containers", "initContainers"].iter().flat_map(|kind| list(spec, kind)).cloned().collect();
        for name in POD_LEVEL {
            if containers.iter().all(|c| quantity_at(c, "limits", name).is_some()) {
                fill(spec, "limits", name, "limits");
            }
        }
    }
}

/// Resources beside huge pages that a pod can ask for as a whole.
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

fn named_by_containers(spec: &Value, side: &str) -> BTreeSet<String> {
    let containers = ["containers", "initContainers"].iter().flat_map(|kind| list(spec, kind));
    let lists = containers.filter_map(|c| c.at(&["resources", side])).filter_map(Value::as_object);
    lists.flat_map(|l| l.keys().cloned()).collect()
}

fn fill(spec: &mut Value, side: &str, name: &str, from: &str) {
    if spec.at(&["resources", side, name]).is_none() {
        let sum = aggregate(spec, from, name);
        spec.set_at(&["resources", side, name], sum.to_string().into());
    }
}
