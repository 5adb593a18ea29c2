//! CustomResourceDefinition (`apiextensions.k8s.io/v1`).

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
    ..Kind::BASE
};
