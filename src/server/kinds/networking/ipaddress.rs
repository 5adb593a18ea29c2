//! IPAddress (`networking.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    scope: Scope::Cluster,
    short_names: &["ip"],
    storage: "ipaddresses",
    ..Kind::BASE
};
