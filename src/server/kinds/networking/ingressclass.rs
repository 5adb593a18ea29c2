//! IngressClass (`networking.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, class: &Object, errors: &mut Errors) {
        check(class, errors, |class| validate_spec(&class.get("spec")));
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            new.at(&["spec", "controller"]).immutable(&old.at(&["spec", "controller"]));
        });
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

const CONTROLLER_MAX_BYTES: usize = 250;

fn validate_spec(spec: &View<'_>) {
    let controller = spec.get("controller");
    if controller.require() {
        if controller.len() > CONTROLLER_MAX_BYTES {
            controller.too_long(CONTROLLER_MAX_BYTES);
        }
        match controller.str().split_once('/') {
            Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
                if let Err(why) = names::dns_subdomain(domain) {
                    controller.invalid_value(domain, why);
                }
            }
            _ => controller.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
    }
    let parameters = spec.get("parameters");
    if !parameters.is_set() {
        return;
    }
    parameters.get("apiGroup").format_if_set(names::dns_subdomain);
    for field in ["kind", "name"].map(|f| parameters.get(f)) {
        if field.require() {
            field.format(names::path_segment);
        }
    }
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    scope.require_one_of(&["Cluster", "Namespace"]);
    match (scope.str(), namespace.is_set()) {
        ("Namespace", false) => namespace.required("`parameters.scope` is set to 'Namespace'"),
        ("Namespace", true) => namespace.format(names::dns_label),
        ("Cluster", true) => namespace.forbidden("`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}
