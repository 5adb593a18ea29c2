//! Ingress (`networking.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[STATUS],
    storage: "ingress",
    columns: &[Column::NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), Column::AGE],
    strategy: &Ingress,
    ..Kind::BASE
};

/// Hosts that a row shows before ` + N more...`.
const SHOWN: usize = 3;

struct Ingress;

impl Strategy for Ingress {
    fn row(&self, ingress: &Object, now: i64) -> Vec<Value> {
        let spec = |key: &str| ingress.get("spec").map(|s| list(s, key)).unwrap_or_default();
        vec![
            ingress.name().into(),
            or_none(ingress.str_at(&["spec", "ingressClassName"])),
            hosts(spec("rules")).into(),
            load_balancer(ingress).into(),
            if spec("tls").is_empty() { "80" } else { "80, 443" }.into(),
            age(ingress, now),
        ]
    }
}

fn hosts(rules: &[Value]) -> String {
    let hosts: Vec<&str> = rules.iter().map(|r| r.str_at(&["host"])).filter(|h| !h.is_empty()).collect();
    let shown = hosts[..hosts.len().min(SHOWN)].join(",");
    match hosts.len() {
        0 => "*".to_owned(),
        n if n > SHOWN => format!("{shown} + {} more...", rules.len() - SHOWN),
        _ => shown,
    }
}
