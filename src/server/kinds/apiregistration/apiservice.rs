//! APIService (`apiregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    subresources: &[STATUS],
    storage: "apiregistration.k8s.io/apiservices",
    ..Kind::BASE
};
