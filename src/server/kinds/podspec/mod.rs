//! What Pods and pod templates share: defaults, validation, QoS.

mod containers;
pub mod defaults;
mod env;
mod handlers;
pub mod qos;
pub mod resources;
pub mod scheduling;
mod security;
#[cfg(test)]
mod tests;
mod volumes;
mod warnings;

use crate::server::kinds::view::View;
use crate::server::kinds::{names, rules};
use std::collections::{BTreeSet, HashMap};

pub use volumes::{Source, csi_driver_name, host_path, volume_sources};
pub use warnings::{template_warnings, warnings};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// What rules inside a pod spec need to know of the rest of it.
struct Context<'a> {
    /// The spec of a Pod, not of a template.
    is_pod: bool,
    restart_policy: &'a str,
    grace_seconds: Option<i64>,
    host_users: bool,
    volumes: HashMap<&'a str, View<'a>>,
    claims: BTreeSet<&'a str>,
}

/// A pod template: `template` of PodTemplates, `spec.template` of workload kinds.
pub fn template(template: &View<'_>) {
    let metadata = template.get("metadata");
    let path = template.path();
    rules::labels(&metadata.get("labels").named(path.child("labels")));
    rules::annotations(&metadata.get("annotations").named(path.child("annotations")));
    let spec = template.get("spec");
    pod_spec(&spec, None);
    if !spec.get("ephemeralContainers").is_empty() {
        spec.get("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template");
    }
}

/// A template whose pods always restart: of Deployments, ReplicaSets, DaemonSets, StatefulSets.
pub fn restarting_template(of: &View<'_>) {
    template(of);
    let policy = of.at(&["spec", "restartPolicy"]);
    if !policy.is_empty() {
        policy.one_of(&["Always"]);
    }
}

/// A pod spec; `pod_name` where it is a Pod's.
pub fn pod_spec(spec: &View<'_>, pod_name: Option<&str>) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.required("");
    }
    let context = Context {
        is_pod: pod_name.is_some(),
        restart_policy: spec.get("restartPolicy").str(),
        grace_seconds: grace.int(),
        host_users: spec.get("hostUsers").value().as_bool().unwrap_or(true),
        volumes: volumes::volumes(&spec.get("volumes"), pod_name),
        claims: spec.get("resourceClaims").items().map(|c| c.get("name").str()).filter(|n| !n.is_empty()).collect(),
    };
    resource_claims(&spec.get("resourceClaims"));
    containers::all(spec, &context);
    resources::pod_level(spec);
    spec.get("restartPolicy").require_one_of(&["Always", "OnFailure", "Never"]);
    spec.get("dnsPolicy").require_one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    rules::labels(&spec.get("nodeSelector"));
    security::pod(spec);
    scheduling::affinity(&spec.get("affinity"));
    dns_config(spec);
    for gate in spec.get("readinessGates").items() {
        gate.get("conditionType").formats(names::qualified_name);
    }
    scheduling::gates(&spec.get("schedulingGates"));
    scheduling::spread_constraints(&spec.get("topologySpreadConstraints"));
    host_namespaces(spec, &context);
    names_in_spec(spec);
    if spec.get("activeDeadlineSeconds").is_set() {
        spec.get("activeDeadlineSeconds").in_range(1, i32::MAX.into());
    }
    scheduling::tolerations(&spec.get("tolerations"));
    host_aliases(&spec.get("hostAliases"));
    spec.get("preemptionPolicy").one_of_if_set(&["PreemptLowerPriority", "Never"]);
    resources::quantities(&spec.get("overhead"), resources::container_resource_name);
    let os = spec.get("os");
    if os.is_set() && os.get("name").is_empty() {
        os.get("name").required("cannot be empty");
    } else if os.is_set() && !["linux", "windows"].contains(&os.get("name").str()) {
        os.get("name").named(os.path().clone()).not_supported(&["linux", "windows"]);
    }
}

fn names_in_spec(spec: &View<'_>) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName"] {
        spec.get(field).format_if_set(names::dns_subdomain);
    }
    if spec.get("runtimeClassName").is_set() {
        spec.get("runtimeClassName").format(names::dns_subdomain);
    }
    for field in ["hostname", "subdomain"] {
        spec.get(field).format_if_set(names::dns_label);
    }
}

/// KEP-127: a user namespace goes with none of the host's namespaces.
fn host_namespaces(spec: &View<'_>, context: &Context<'_>) {
    if context.host_users {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            spec.get(field).named(spec.path().child(shown)).forbidden("when `pod.Spec.HostUsers` is false");
        }
    }
}

fn resource_claims(claims: &View<'_>) {
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.require() {
            if seen.insert(name.str()) { name.format(names::dns_label) } else { name.duplicate() }
        }
        let (direct, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (direct.is_set(), template.is_set()) {
            (true, true) => {
                claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
            }
            (false, false) => claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        direct.format_if_set(names::dns_subdomain);
        template.format_if_set(names::dns_subdomain);
    }
}

fn host_aliases(aliases: &View<'_>) {
    for alias in aliases.items() {
        rules::ip(&alias.get("ip"));
        alias.get("hostnames").items().for_each(|name| name.format(names::dns_subdomain));
    }
}

fn dns_config(spec: &View<'_>) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").str() == "None" {
        if !config.is_set() {
            return config.required("must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > MAX_NAMESERVERS {
        servers.invalid(format!("must not have more than {MAX_NAMESERVERS} nameservers"));
    }
    servers.items().for_each(|server| _ = rules::ip(&server));
    if searches.len() > MAX_SEARCH_PATHS {
        searches.invalid(format!("must not have more than {MAX_SEARCH_PATHS} search paths"));
    }
    let bytes: usize = searches.items().map(|s| s.len() + 1).sum();
    if bytes > MAX_SEARCH_BYTES + 1 {
        let why =
            format!("must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list");
        searches.invalid(why);
    }
    for search in searches.items().filter(|s| s.str() != ".") {
        if let Err(why) = names::dns_subdomain_with_underscore(search.str().trim_end_matches('.')) {
            search.invalid(why);
        }
    }
    for option in config.get("options").items().filter(|o| o.get("name").is_empty()) {
        option.required("must not be empty");
    }
}
