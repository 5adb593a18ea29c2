//! Rules for Services.

use crate::server::kinds::view::View;
use crate::server::kinds::{names, rules};
use std::collections::BTreeSet;

/// Seconds in a day: the longest session affinity.
const MAX_AFFINITY_SECONDS: i64 = 86_400;
const ONLY_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

pub fn service(service: &View<'_>) {
    let spec = service.get("spec");
    let kind = spec.get("type");
    let ports = spec.get("ports");
    if ports.is_empty() && !is_headless(&spec) && kind.str() != "ExternalName" {
        ports.required("");
    }
    kind_rules(&spec);
    validate_ports(&spec);
    rules::labels(&spec.get("selector"));
    session_affinity(&spec);
    cluster_ips(&spec);
    for ip in spec.get("externalIPs").items() {
        if rules::ip(&ip).is_some() {
            rules::non_special_ip(&ip);
        }
    }
    kind.require_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    balancer(&spec);
    traffic_policies(&spec);
}

fn is_headless(spec: &View<'_>) -> bool {
    spec.get("clusterIPs").len() == 1 && spec.get("clusterIPs").item(0).str() == "None"
}

fn kind_rules(spec: &View<'_>) {
    match spec.get("type").str() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            spec.get("clusterIPs").item(0).invalid(format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].map(|f| spec.get(f)) {
                if !field.is_empty() {
                    field.forbidden("may not be set for ExternalName services");
                }
            }
            let name = spec.get("externalName");
            // A trailing dot says that the name is fully qualified.
            let plain = name.str().strip_suffix('.').unwrap_or(name.str());
            if plain.is_empty() {
                name.required("");
            } else if let Err(why) = names::dns_subdomain(plain) {
                name.invalid_value(plain, why);
            }
        }
        _ => {}
    }
}

fn validate_ports(spec: &View<'_>) {
    let ports = spec.get("ports");
    let (mut port_names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in ports.items() {
        let name = port.get("name");
        if name.is_empty() && ports.len() > 1 {
            name.required("");
        } else if !name.is_empty() {
            name.format(names::dns_label);
            if !port_names.insert(name.str()) {
                name.duplicate();
            }
        }
        port.get("port").port();
        port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"]);
        rules::port_or_name(&port.get("targetPort"));
        if port.get("appProtocol").is_set() {
            port.get("appProtocol").formats(names::qualified_name);
        }
        let (protocol, number, node_port) =
            (port.get("protocol").str(), port.get("port").number(), port.get("nodePort"));
        if node_port.number() != 0 {
            if spec.get("type").str() == "ClusterIP" {
                node_port.forbidden("may not be used when `type` is 'ClusterIP'");
            }
            if !node_ports.insert((protocol, node_port.number())) {
                node_port.duplicate();
            }
        }
        if !numbers.insert((protocol, number)) {
            port.duplicate_value(serde_json::json!({"protocol": protocol, "port": number}));
        }
    }
}

fn session_affinity(spec: &View<'_>) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.require_one_of(&["ClientIP", "None"]);
    match affinity.str() {
        "ClientIP" => {
            let timeout = config.at(&["clientIP", "timeoutSeconds"]);
            if !timeout.is_set() {
                timeout.required("when session affinity type is ClientIP");
            } else if !(1..=MAX_AFFINITY_SECONDS).contains(&timeout.number()) {
                timeout.invalid(format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
            }
        }
        "None" if config.is_set() => config.forbidden("must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(spec: &View<'_>) {
    if spec.get("type").str() == "ExternalName" {
        return;
    }
    let (one, all, families) = (spec.get("clusterIP"), spec.get("clusterIPs"), spec.get("ipFamilies"));
    match (one.is_empty(), all.is_empty()) {
        (false, true) => all.required(""),
        (false, false) if all.item(0).str() != one.str() => all.invalid("first value must match `clusterIP`"),
        (true, false) => all.invalid("must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in families.items() {
        family.one_of(&["IPv4", "IPv6"]);
        if !seen.insert(family.str()) {
            family.duplicate();
        }
    }
    spec.get("ipFamilyPolicy").one_of_if_set(&["PreferDualStack", "RequireDualStack", "SingleStack"]);
    if all.item(0).str() == "None" {
        if all.len() > 1 {
            all.invalid("'None' must be the first and only value");
        }
        return;
    }
    if all.len() > 2 {
        all.invalid("may only hold up to 2 values");
    }
    let valid = all.items().filter(|ip| rules::ip(ip).is_some()).count();
    if valid < all.len() {
        return;
    }
    rules::one_per_family(&all, |ip| rules::parse_ip(ip.str()).map(|ip| ip.is_ipv4()), "IP");
    for (i, (ip, family)) in all.items().zip(families.items()).enumerate() {
        let is_v4 = rules::parse_ip(ip.str()).is_some_and(|ip| ip.is_ipv4());
        if is_v4 != (family.str() == "IPv4") {
            ip.invalid(format!("expected an {} value as indicated by `ipFamilies[{i}]`", family.str()));
        }
    }
}

fn balancer(spec: &View<'_>) {
    const RANGES: &str = "LoadBalancerSourceRanges";
    let is_balancer = spec.get("type").str() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges").named(spec.path().child(RANGES));
    if !ranges.is_empty() {
        if !is_balancer {
            ranges.forbidden(ONLY_BALANCER);
        }
        ranges.items().for_each(|range| _ = rules::cidr(&range));
    }
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if allocate.is_set() && !is_balancer {
        allocate.forbidden(ONLY_BALANCER);
    }
    let class = spec.get("loadBalancerClass");
    if class.is_set() {
        if is_balancer { class.formats(names::qualified_name) } else { class.forbidden(ONLY_BALANCER) }
    }
}

/// Reached from outside the cluster: only then does it matter where traffic goes from there.
fn is_external(spec: &View<'_>) -> bool {
    match spec.get("type").str() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.get("externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_health_check(spec: &View<'_>) -> bool {
    spec.get("type").str() == "LoadBalancer" && spec.get("externalTrafficPolicy").str() == "Local"
}

fn traffic_policies(spec: &View<'_>) {
    let external = spec.get("externalTrafficPolicy");
    if is_external(spec) {
        external.require_one_of(&["Cluster", "Local"]);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    if !needs_health_check(spec) {
        if health.number() != 0 {
            health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
        }
    } else if health.number() == 0 {
        health.required("");
    } else {
        health.port();
    }
    let internal = spec.get("internalTrafficPolicy");
    let needs_internal = matches!(spec.get("type").str(), "NodePort" | "LoadBalancer" | "ClusterIP");
    if !internal.is_set() && needs_internal {
        internal.required("");
    }
    internal.one_of_if_set(&["Cluster", "Local"]);
    spec.get("trafficDistribution").one_of_if_set(&["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// The primary address and family are for life; a second of each may come and go.
pub fn change(new: &View<'_>, old: &View<'_>) {
    let (spec, former) = (new.get("spec"), old.get("spec"));
    let external_name = [&spec, &former].iter().any(|s| s.get("type").str() == "ExternalName");
    if !external_name {
        if !(is_headless(&spec) && is_headless(&former)) {
            fixed_list(&spec, &former, "clusterIPs", "primary clusterIP can not be unset");
        }
        if !is_headless(&spec) && !is_headless(&former) {
            fixed_list(&spec, &former, "ipFamilies", "primary ipFamily can not be unset");
        }
    }
    let (class, before) = (spec.get("loadBalancerClass"), former.get("loadBalancerClass"));
    let both_balancers = [&spec, &former].iter().all(|s| s.get("type").str() == "LoadBalancer");
    if both_balancers && class.value() != before.value() {
        class.invalid("may not change once set");
    }
    let (port, before) = (spec.get("healthCheckNodePort"), former.get("healthCheckNodePort"));
    if needs_health_check(&spec) && needs_health_check(&former) && port.number() != before.number() {
        port.forbidden("field is immutable");
    }
}

fn fixed_list(spec: &View<'_>, former: &View<'_>, field: &str, unset: &str) {
    let (now, before) = (spec.get(field), former.get(field));
    if now.is_empty() && !before.is_empty() {
        now.item(0).invalid_value(serde_json::Value::Array(Vec::new()), unset);
    }
    for i in 0..now.len().min(before.len()) {
        if now.item(i).str() != before.item(i).str() {
            now.item(i).invalid_value(now.value().clone(), "may not change once set");
        }
    }
    let what = if field == "clusterIPs" { "clusterIP" } else { "ipFamily" };
    let policy = spec.get("ipFamilyPolicy");
    if now.len() == 1 && before.len() > 1 && policy.str() != "SingleStack" {
        policy.invalid(format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}

pub fn status(service: &View<'_>) {
    for ingress in service.at(&["status", "loadBalancer", "ingress"]).items() {
        let (ip, mode, host) = (ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname"));
        if !ip.is_empty() {
            rules::ip(&ip);
        }
        match (ip.is_empty(), mode.is_set()) {
            (false, false) => mode.required("must be specified when `ip` is set"),
            (true, true) => mode.forbidden("may not be specified when `ip` is not set"),
            _ => mode.one_of_if_set(&["Proxy", "VIP"]),
        }
        host.format_if_set(names::dns_subdomain);
        if rules::parse_ip(host.str()).is_some() {
            host.invalid("must be a DNS name, not an IP address");
        }
    }
}
