//! What requests may say. Pure.
//!
//! A node's certificate (client or serving): subject `O=system:nodes` and nothing else there, `CN=system:node:NAME`;
//! usages "digital signature", "client auth" or "server auth", and "key encipherment" if wanted, none else.
//!
//! A serving certificate is approved without a person when all of this holds:
//! - its requestor is the node itself: user `system:node:NAME` in the group `system:nodes`, NAME that of the subject;
//! - it has a name or an address, and neither e-mail addresses nor URIs;
//! - no name is one of the API server's;
//! - no address is the API server's, and nothing is what another Node reports;
//! - each is the node's name, or is reported in the Node's `status.addresses`. A Node that is not there yet, or reports
//!   nothing yet (its first join), can only be taken at its word: its own name and unicast addresses.
//!
//! What breaks the first three is denied. What breaks the others stays undecided: the Node may report more, the other
//! Node may be an old one with an address that was given away again; or a person approves it.

use super::{CLIENT, LEGACY, NODE_CLIENT, NODE_SERVING};
use crate::pki::Request;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const AUTH_CLIENT: &str = "client auth";
const AUTH_SERVER: &str = "server auth";

/// The node that a certificate of a node is for.
pub fn node_name(request: &Request) -> &str {
    request.common_name.strip_prefix(NODE_PREFIX).unwrap_or("")
}

fn usages(spec: &CertificateSigningRequestSpec) -> Vec<&str> {
    spec.usages.iter().flatten().map(String::as_str).collect()
}

/// Subject and usages of a node's certificate; Err says what is wrong.
fn node_subject(request: &Request, usages: &[&str], auth: &str) -> Result<(), String> {
    if request.organizations != [NODES] {
        return Err("subject organization is not system:nodes".into());
    }
    if node_name(request).is_empty() {
        return Err("subject common name does not begin with system:node:".into());
    }
    let wanted = |u: &&str| *u == auth || *u == "digital signature";
    let others = usages.iter().filter(|u| !wanted(u));
    if !usages.contains(&auth)
        || !usages.contains(&"digital signature")
        || others.clone().any(|u| *u != "key encipherment")
    {
        return Err(format!("usages did not match {auth:?}, \"digital signature\" and maybe \"key encipherment\""));
    }
    Ok(())
}

fn node_client(request: &Request, usages: &[&str]) -> Result<(), String> {
    node_subject(request, usages, AUTH_CLIENT)?;
    let bare = request.dns_names.is_empty() && request.addresses.is_empty();
    match bare && request.emails.is_empty() && request.uris.is_empty() {
        true => Ok(()),
        false => Err("a node's client certificate has no alternative names".into()),
    }
}

fn node_serving(request: &Request, usages: &[&str]) -> Result<(), String> {
    node_subject(request, usages, AUTH_SERVER)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if !request.emails.is_empty() || !request.uris.is_empty() {
        return Err("email and URI subjectAltNames are not allowed".into());
    }
    Ok(())
}

fn user_client(usages: &[&str]) -> Result<(), String> {
    if let Some(other) = usages.iter().find(|u| ![AUTH_CLIENT, "digital signature", "key encipherment"].contains(u)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.contains(&AUTH_CLIENT) {
        true => Ok(()),
        false => Err(format!("missing required usage for client certificate: {AUTH_CLIENT}")),
    }
}

/// Whether a request is what its signer signs. None: no signer of ours.
pub fn fits_signer(spec: &CertificateSigningRequestSpec, request: &Request) -> Option<Result<(), String>> {
    let usages = usages(spec);
    Some(match spec.signer_name.as_str() {
        NODE_CLIENT => node_client(request, &usages),
        NODE_SERVING => node_serving(request, &usages),
        CLIENT => user_client(&usages),
        LEGACY => Ok(()),
        _ => return None,
    })
}

/// The requestor is the node whose certificate this is.
pub fn is_own(spec: &CertificateSigningRequestSpec, request: &Request) -> bool {
    spec.username.as_deref() == Some(request.common_name.as_str())
}

/// What is to be done with a request for a serving certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Approve,
    Deny(String),
    /// Not yet: says what is missing.
    Wait(String),
}

/// Judge a request of signer [`NODE_SERVING`] that [`fits_signer`]. `node`: the Node of that name; `others`: the rest.
pub fn serving<'a>(
    spec: &CertificateSigningRequestSpec,
    request: &Request,
    node: Option<&Node>,
    others: impl Iterator<Item = &'a Node> + Clone,
    api_names: &[String],
) -> Verdict {
    let in_nodes = spec.groups.iter().flatten().any(|g| g == NODES);
    if !is_own(spec, request) || !in_nodes {
        return Verdict::Deny(format!("only {} itself may ask for its serving certificate", request.common_name));
    }
    let name = node_name(request);
    let reported: Vec<&str> = node.map(addresses).unwrap_or_default();
    let mut doubts = Vec::new();
    for wanted in names(request) {
        let address = wanted.parse::<IpAddr>();
        if is_cluster_name(&wanted) || address.is_err() && is_api(&wanted, api_names) {
            return Verdict::Deny(format!("{wanted} is a name of the API server"));
        }
        if is_api(&wanted, api_names) {
            doubts.push(format!("{wanted} is an address of the API server"));
        } else if let Some(owner) = others.clone().find(|o| is_of(o, &wanted)) {
            let owner = owner.metadata.name.as_deref().unwrap_or("");
            doubts.push(format!("{wanted} belongs to node {owner}"));
        } else if wanted != name && !reported.contains(&wanted.as_str()) {
            let at_its_word = reported.is_empty() && address.is_ok_and(is_unicast);
            doubts.extend((!at_its_word).then(|| format!("node {name} does not report {wanted}")));
        }
    }
    if doubts.is_empty() { Verdict::Approve } else { Verdict::Wait(doubts.join(", ")) }
}

/// Everything a serving certificate would be valid for.
fn names(request: &Request) -> impl Iterator<Item = String> {
    request.dns_names.iter().map(|n| n.to_ascii_lowercase()).chain(request.addresses.iter().map(IpAddr::to_string))
}

fn addresses(node: &Node) -> Vec<&str> {
    let listed = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    listed.iter().map(|a| a.address.as_str()).collect()
}

fn is_of(node: &Node, wanted: &str) -> bool {
    node.metadata.name.as_deref() == Some(wanted) || addresses(node).contains(&wanted)
}

fn is_api(wanted: &str, api_names: &[String]) -> bool {
    api_names.iter().any(|n| n.eq_ignore_ascii_case(wanted))
}

/// Names under which pods reach the API server, whatever the cluster's domain is; wildcards.
fn is_cluster_name(wanted: &str) -> bool {
    wanted == "kubernetes" || wanted.starts_with("kubernetes.default") || wanted.contains('*')
}

fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || broadcast)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
