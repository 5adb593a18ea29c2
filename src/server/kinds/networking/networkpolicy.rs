//! NetworkPolicy (`networking.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
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

    fn row(&self, policy: &Object, now: i64) -> Vec<Value> {
        vec![policy.name().into(), selector(policy.at(&["spec", "podSelector"])).into(), age(policy, now)]
    }
}
