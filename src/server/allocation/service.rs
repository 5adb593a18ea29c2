//! What a Service asks for, has, and gives back.

use super::address;
use super::port;
use super::{Extra, Network};
use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::server::registry::Call;
use crate::status::{Result, Status};
use crate::store::Store;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::Ipv4Addr;

pub async fn plan(call: &Call, old: Option<&Object>, new: Option<&mut Object>) -> Result<Extra> {
    let mut extra = Extra::default();
    let network = call.api.network();
    let store = &**call.api.registry().store();
    let had_address = old.and_then(address_of);
    let had_ports = old.map(ports_of).unwrap_or_default();
    let Some(new) = new else {
        had_address.into_iter().for_each(|a| address::release(&mut extra, a));
        had_ports.into_iter().for_each(|p| port::release(&mut extra, p));
        return Ok(extra);
    };
    if let Some(old) = old {
        carry_over(new, old);
    }
    let mut errors = Errors::new();
    let address = choose_address(network, store, new, had_address, &mut extra, &mut errors).await?;
    let ports = choose_ports(network, store, new, &had_ports, &mut extra, &mut errors).await?;
    if !errors.is_empty() {
        return Err(call.invalid(new.name(), errors));
    }
    if let Some(gone) = had_address.filter(|a| Some(*a) != address) {
        address::release(&mut extra, gone);
    }
    had_ports.difference(&ports).for_each(|p| port::release(&mut extra, *p));
    Ok(extra)
}

fn service_type(service: &Object) -> &str {
    match service.str_at(&["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

fn has_cluster_ip(service: &Object) -> bool {
    service_type(service) != "ExternalName"
}

fn has_node_ports(service: &Object) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// The address a stored Service holds; none for headless and ExternalName.
fn address_of(service: &Object) -> Option<Ipv4Addr> {
    if !has_cluster_ip(service) {
        return None;
    }
    service.str_at(&["spec", "clusterIP"]).parse().ok()
}

/// The node ports a stored Service holds, each once.
fn ports_of(service: &Object) -> HashSet<u16> {
    let ports = service.at(&["spec", "ports"]).and_then(Value::as_array).into_iter().flatten();
    let mut all: HashSet<u16> = ports.filter_map(|p| number(p.get("nodePort"))).collect();
    all.extend(number(service.at(&["spec", "healthCheckNodePort"])));
    all
}

fn number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

/// An update that does not mention what was allocated keeps it (upstream `patchAllocatedValues`).
fn carry_over(new: &mut Object, old: &Object) {
    if has_cluster_ip(new) && has_cluster_ip(old) && new.str_at(&["spec", "clusterIP"]).is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.at(&["spec", field]) {
                new.set_at(&["spec", field], value.clone());
            }
        }
    }
    if !has_node_ports(new) || !has_node_ports(old) {
        return;
    }
    let before = old.at(&["spec", "ports"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let same = |a: &Value, b: &Value| a.get("port") == b.get("port") && protocol(a) == protocol(b);
    let mut used = ports_of(new);
    for entry in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if number(entry.get("nodePort")).is_some() {
            continue;
        }
        let kept = before.iter().find(|b| same(entry, b)).and_then(|b| number(b.get("nodePort")));
        if let Some(kept) = kept.filter(|p| used.insert(*p)) {
            entry["nodePort"] = kept.into();
        }
    }
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

/// Settle `spec.clusterIP` and `clusterIPs`; the address that the Service holds afterwards.
async fn choose_address(
    network: &Network,
    store: &dyn Store,
    new: &mut Object,
    had: Option<Ipv4Addr>,
    extra: &mut Extra,
    errors: &mut Errors,
) -> Result<Option<Ipv4Addr>> {
    if !has_cluster_ip(new) {
        let spec = ["clusterIP", "clusterIPs"];
        spec.iter().for_each(|field| drop(new.remove_at(&["spec", field])));
        return Ok(None);
    }
    let first = new.at(&["spec", "clusterIPs"]).and_then(|l| l.get(0)).and_then(Value::as_str).unwrap_or("").to_owned();
    let asked = match new.str_at(&["spec", "clusterIP"]) {
        "" => first,
        address => address.to_owned(),
    };
    let path = Path::new("spec").child("clusterIPs");
    check_families(new, errors);
    if asked == "None" {
        set_addresses(new, "None");
        return Ok(None);
    }
    if asked.is_empty() {
        let free = network.free_address(store).await?;
        address::take(extra, free, new)?;
        set_addresses(new, &free.to_string());
        return Ok(Some(free));
    }
    let Ok(wanted) = asked.parse::<Ipv4Addr>() else {
        let why = "failed to allocate IP: only IPv4 addresses of the service range can be used";
        errors.invalid(&path, json!([asked]), why);
        return Ok(had);
    };
    if Some(wanted) != had {
        if !network.contains(wanted) {
            let why = format!(
                "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of \
                 valid IPs is {}",
                network.cidr()
            );
            errors.invalid(&path, json!([asked]), why);
            return Ok(had);
        }
        if address::exists(store, address::key(wanted)).await? {
            let why = format!("failed to allocate IP {wanted}: provided IP is already allocated");
            errors.invalid(&path, json!([asked]), why);
            return Ok(had);
        }
        address::take(extra, wanted, new)?;
    }
    set_addresses(new, &asked);
    Ok(Some(wanted))
}

/// There is one range, of IPv4 addresses.
fn check_families(service: &Object, errors: &mut Errors) {
    let spec = Path::new("spec");
    let policy = service.str_at(&["spec", "ipFamilyPolicy"]);
    if policy == "RequireDualStack" {
        errors.invalid(&spec.child("ipFamilyPolicy"), policy, "this cluster is not configured for dual-stack services");
    }
    let families = service.at(&["spec", "ipFamilies"]).and_then(Value::as_array).into_iter().flatten();
    for (i, family) in families.enumerate().filter(|(_, f)| *f != "IPv4") {
        errors.invalid(&spec.child("ipFamilies").index(i), family.clone(), "not configured on this cluster");
    }
}

fn set_addresses(service: &mut Object, address: &str) {
    service.set_at(&["spec", "clusterIP"], address.into());
    service.set_at(&["spec", "clusterIPs"], json!([address]));
    if service.at(&["spec", "ipFamilies"]).is_none() {
        service.set_at(&["spec", "ipFamilies"], json!(["IPv4"]));
    }
    if service.at(&["spec", "ipFamilyPolicy"]).is_none() {
        service.set_at(&["spec", "ipFamilyPolicy"], "SingleStack".into());
    }
}

/// Settle node ports; those that the Service holds afterwards.
async fn choose_ports(
    network: &Network,
    store: &dyn Store,
    new: &mut Object,
    had: &HashSet<u16>,
    extra: &mut Extra,
    errors: &mut Errors,
) -> Result<HashSet<u16>> {
    let mut ports: Vec<Value> = new.at(&["spec", "ports"]).and_then(Value::as_array).cloned().unwrap_or_default();
    if !has_node_ports(new) {
        let external = service_type(new) == "LoadBalancer";
        // A LoadBalancer without allocation keeps ports that it was explicitly given.
        if !external {
            ports.iter_mut().filter_map(Value::as_object_mut).for_each(|p| drop(p.remove("nodePort")));
            if !ports.is_empty() {
                new.set_at(&["spec", "ports"], ports.into());
            }
            new.remove_at(&["spec", "healthCheckNodePort"]);
            return Ok(HashSet::new());
        }
    }
    let allocate = has_node_ports(new);
    let mut chosen = HashSet::new();
    // The same port may serve two protocols of one Service: it is taken once.
    for (i, entry) in ports.iter().enumerate() {
        let Some(asked) = number(entry.get("nodePort")) else { continue };
        let path = Path::new("spec").child("ports").index(i).child("nodePort");
        if !chosen.insert(asked) || had.contains(&asked) {
            continue;
        }
        if !network.is_node_port(asked) {
            let (first, last) = network.node_ports;
            errors.invalid(
                &path,
                asked,
                format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"),
            );
        } else if address::exists(store, port::key(asked)).await? {
            errors.invalid(&path, asked, "provided port is already allocated");
        } else {
            port::take(extra, asked, new);
        }
    }
    for i in 0..ports.len() {
        if !allocate || number(ports[i].get("nodePort")).is_some() {
            continue;
        }
        let (other, mine) = (ports[i].get("port").cloned(), protocol(&ports[i]).to_owned());
        // TCP and UDP on the same port number share a node port, as upstream has it.
        let shared = ports.iter().find(|p| p.get("port").cloned() == other && protocol(p) != mine);
        let port = match shared.and_then(|p| number(p.get("nodePort"))) {
            Some(port) => port,
            None => {
                let port = network.free_port(store, &chosen).await?;
                port::take(extra, port, new);
                port
            }
        };
        chosen.insert(port);
        ports[i]["nodePort"] = port.into();
    }
    if !ports.is_empty() {
        new.set_at(&["spec", "ports"], ports.into());
    }
    chosen.extend(health_port(network, store, new, had, &chosen, extra).await?);
    Ok(chosen)
}

/// A LoadBalancer with local traffic policy has one more port, for health checks.
async fn health_port(
    network: &Network,
    store: &dyn Store,
    new: &mut Object,
    had: &HashSet<u16>,
    chosen: &HashSet<u16>,
    extra: &mut Extra,
) -> Result<Option<u16>> {
    let local = new.str_at(&["spec", "externalTrafficPolicy"]) == "Local";
    if service_type(new) != "LoadBalancer" || !local {
        new.remove_at(&["spec", "healthCheckNodePort"]);
        return Ok(None);
    }
    if let Some(asked) = number(new.at(&["spec", "healthCheckNodePort"])) {
        if !had.contains(&asked) {
            if !network.is_node_port(asked) || address::exists(store, port::key(asked)).await? {
                let why = format!(
                    "failed to allocate requested HealthCheck NodePort {asked}: provided port is already allocated"
                );
                return Err(Status::internal(why));
            }
            port::take(extra, asked, new);
        }
        return Ok(Some(asked));
    }
    let port = network.free_port(store, chosen).await?;
    port::take(extra, port, new);
    new.set_at(&["spec", "healthCheckNodePort"], port.into());
    Ok(Some(port))
}
