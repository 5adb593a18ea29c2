//! IngressClass (`networking.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    scope: Scope::Cluster,
    storage: "ingressclasses",
    columns: &[Column::NAME, text("Controller"), text("Parameters"), Column::AGE],
    strategy: &IngressClass,
    ..Kind::BASE
};

struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, class: &mut Object) {
        if let Some(parameters) = descend(class, &["spec", "parameters"]) {
            default_nil(parameters, "scope", "Cluster");
        }
    }

    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        vec![class.name().into(), string(class, &["spec", "controller"]), parameters(class).into(), age(class, now)]
    }
}

/// `Kind.group/name`
fn parameters(class: &Object) -> String {
    let Some(parameters) = class.at(&["spec", "parameters"]).filter(|p| p.is_object()) else { return NONE.to_owned() };
    let group = parameters.str_at(&["apiGroup"]);
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", parameters.str_at(&["kind"]), parameters.str_at(&["name"]))
}
