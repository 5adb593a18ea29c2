//! CustomResourceDefinition (`apiextensions.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    scope: Scope::Cluster,
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: &[STATUS],
    storage: "apiextensions.k8s.io/customresourcedefinitions",
    strategy: &CustomResourceDefinition,
    ..Kind::BASE
};

struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, crd: &mut Object) {
        let Some(spec) = child(crd, "spec") else { return };
        if let Some(names) = child(spec, "names") {
            let kind = names.str_at(&["kind"]).to_owned();
            default_zero(names, "singular", kind.to_lowercase());
            if !kind.is_empty() {
                default_zero(names, "listKind", format!("{kind}List"));
            }
        }
        if let Some(conversion) = child_or_new(spec, "conversion") {
            default_zero(conversion, "strategy", "None");
            if let Some(service) = descend(conversion, &["webhook", "clientConfig", "service"]) {
                default_nil(service, "port", 443);
            }
        }
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
