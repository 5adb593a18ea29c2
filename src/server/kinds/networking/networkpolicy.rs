//! NetworkPolicy (`networking.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    storage: "networkpolicies",
    columns: &[Column::NAME, text("Pod-Selector"), Column::AGE],
    strategy: &NetworkPolicy,
    ..Kind::BASE
};

struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, policy: &mut Object) {
        let Some(spec) = child(policy, "spec") else { return };
        for direction in ["ingress", "egress"] {
            for rule in items(spec, direction) {
                for port in items(rule, "ports") {
                    default_nil(port, "protocol", "TCP");
                }
            }
        }
        let types: &[&str] = if list(spec, "egress").is_empty() { &["Ingress"] } else { &["Ingress", "Egress"] };
        default_zero(spec, "policyTypes", types);
    }

    fn validate(&self, policy: &Object, errors: &mut Errors) {
        check(policy, errors, |policy| {
            let spec = policy.get("spec");
            rules::label_selector(&spec.get("podSelector"));
            for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in spec.get(direction).items() {
                    rule.get("ports").items().for_each(|port| validate_port(&port));
                    rule.get(peers).items().for_each(|peer| validate_peer(&peer));
                }
            }
            let types = spec.get("policyTypes");
            if types.len() > 2 {
                return types.invalid("may not specify more than two policyTypes");
            }
            types.items().for_each(|kind| kind.one_of(&["Ingress", "Egress"]));
        });
    }

    fn row(&self, policy: &Object, now: i64) -> Vec<Value> {
        vec![policy.name().into(), selector(policy.at(&["spec", "podSelector"])).into(), age(policy, now)]
    }
}

fn validate_port(port: &View<'_>) {
    port.get("protocol").one_of_if_set(&["TCP", "UDP", "SCTP"]);
    let (number, end) = (port.get("port"), port.get("endPort"));
    if number.value().is_string() {
        number.formats(names::port_name);
        if end.is_set() {
            end.invalid("may not be specified when `port` is non-numeric");
        }
    } else if number.is_set() {
        number.port();
        if end.is_set() {
            if end.number() < number.number() {
                end.invalid("must be greater than or equal to `port`");
            }
            end.port();
        }
    } else if end.is_set() {
        end.invalid("may not be specified when `port` is not specified");
    }
}

fn validate_peer(peer: &View<'_>) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    rules::label_selector(&pods);
    rules::label_selector(&namespaces);
    if block.is_set() {
        validate_block(&block);
        if pods.is_set() || namespaces.is_set() {
            peer.forbidden("may not specify both ipBlock and another peer");
        }
    } else if !pods.is_set() && !namespaces.is_set() {
        peer.required("must specify a peer");
    }
}

fn validate_block(block: &View<'_>) {
    let cidr = block.get("cidr");
    if !cidr.require() {
        return;
    }
    let Some((address, bits)) = rules::cidr(&cidr) else { return };
    for except in block.get("except").items() {
        let Some((inner, inner_bits)) = rules::cidr(&except) else { continue };
        if inner_bits <= bits || !rules::in_network(inner, address, bits) {
            except.invalid("must be a strict subset of `cidr`");
        }
    }
}
