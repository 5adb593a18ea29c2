//! Service (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "proxy",
            verbs: &["create", "delete", "get", "patch", "update"],
            kind: Some(("", "v1", "ServiceProxyOptions")),
        },
        STATUS,
    ],
    storage: "services/specs",
    selectable: &["spec.clusterIP", "spec.type"],
    ..Kind::BASE
};
