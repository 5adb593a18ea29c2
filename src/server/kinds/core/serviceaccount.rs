//! ServiceAccount (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        verbs: &["create"],
        kind: Some(("authentication.k8s.io", "v1", "TokenRequest")),
    }],
    storage: "serviceaccounts",
    ..Kind::BASE
};
