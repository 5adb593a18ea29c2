//! Node (`v1`).

use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{resources, scheduling};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;
use serde_json::json;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    scope: Scope::Cluster,
    short_names: &["no"],
    subresources: &[
        Subresource {
            name: "proxy",
            verbs: &["create", "delete", "get", "patch", "update"],
            kind: Some(("", "v1", "NodeProxyOptions")),
        },
        STATUS,
    ],
    storage: "minions",
    selectable: &["spec.unschedulable"],
    columns: &[
        Column::NAME,
        text("Status"),
        text("Roles"),
        Column::AGE,
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    strategy: &Node,
    ..Kind::BASE
};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

struct Node;

impl Strategy for Node {
    fn default(&self, node: &mut Object) {
        if let Some(status) = child(node, "status")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            default_nil(status, "allocatable", capacity);
        }
        let Some(spec) = child(node, "spec") else { return };
        // Two names of one field: the list's first entry is the old single one.
        if let Some(first) = list(spec, "podCIDRs").first().cloned() {
            spec.set_at(&["podCIDR"], first);
        } else if !is_zero(spec, "podCIDR") {
            let cidrs = json!([spec["podCIDR"]]);
            default_zero(spec, "podCIDRs", cidrs);
        }
    }

    /// Nodes report themselves with their status in one request.
    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn selectable_value(&self, node: &Object, field: &str) -> Option<String> {
        (field == "spec.unschedulable").then(|| bool_at(node, &["spec", "unschedulable"]).to_string())
    }

    fn validate(&self, node: &Object, errors: &mut Errors) {
        check(node, errors, |node| {
            // Upstream names the taints under metadata.
            scheduling::taints(&node.at(&["spec", "taints"]).named(Path::new("metadata").child("taints")));
            node_resources(node);
            let cidrs = node.at(&["spec", "podCIDRs"]);
            cidrs.items().for_each(|cidr| _ = rules::cidr(&cidr));
            let family = |cidr: &View<'_>| rules::parse_cidr(cidr.str()).map(|(ip, _)| ip.is_ipv4());
            rules::one_per_family(&cidrs, family, "CIDR");
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            let (cidrs, former) = (new.at(&["spec", "podCIDRs"]), old.at(&["spec", "podCIDRs"]));
            if !former.is_empty() && cidrs.value() != former.value() {
                cidrs.forbidden("node updates may not change podCIDR except from \"\" to valid");
            }
            let (id, former) = (new.at(&["spec", "providerID"]), old.at(&["spec", "providerID"]));
            if !former.is_empty() && id.str() != former.str() {
                id.forbidden("node updates may not change providerID except from \"\" to valid");
            }
        });
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        check(new, errors, |node| {
            node_resources(node);
            let mut seen = BTreeSet::new();
            for address in node.at(&["status", "addresses"]).items() {
                if !seen.insert((address.get("type").str(), address.get("address").str())) {
                    address.duplicate();
                }
            }
        });
    }

    fn row(&self, node: &Object, now: i64) -> Vec<Value> {
        let info = |field: &str| node.str_at(&["status", "nodeInfo", field]);
        vec![
            node.name().into(),
            status(node).into(),
            or_none(&roles(node)),
            age(node, now),
            info("kubeletVersion").into(),
            or_none(address(node, "InternalIP")),
            or_none(address(node, "ExternalIP")),
            or(info("osImage"), UNKNOWN),
            or(info("kernelVersion"), UNKNOWN),
            or(info("containerRuntimeVersion"), UNKNOWN),
        ]
    }
}

fn status(node: &Object) -> String {
    let ready = match condition(node, "Ready") {
        "True" => "Ready",
        "" => "Unknown",
        _ => "NotReady",
    };
    if bool_at(node, &["spec", "unschedulable"]) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Object) -> String {
    let role = |(key, value): (&'_ String, &'_ Value)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => Some(role.to_owned()),
        None => value.as_str().filter(|_| key == ROLE_LABEL).map(str::to_owned),
    };
    let roles: BTreeSet<String> =
        node.labels().into_iter().flatten().filter_map(role).filter(|r| !r.is_empty()).collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(node: &'a Object, kind: &str) -> &'a str {
    let addresses = node.get("status").map(|s| list(s, "addresses")).unwrap_or_default();
    addresses.iter().find(|a| a.str_at(&["type"]) == kind).map_or("", |a| a.str_at(&["address"]))
}

fn node_resources(node: &View<'_>) {
    for list in ["capacity", "allocatable"].map(|list| node.at(&["status", list])) {
        for (name, at) in list.entries() {
            resources::quantity_of(&at.named(list.path().child(name)), name);
        }
    }
}
