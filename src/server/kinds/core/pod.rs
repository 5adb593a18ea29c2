//! Pod (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "attach", verbs: &["create", "get"], kind: Some(("", "v1", "PodAttachOptions")) },
        Subresource { name: "binding", verbs: &["create"], kind: Some(("", "v1", "Binding")) },
        Subresource { name: "ephemeralcontainers", verbs: &["get", "patch", "update"], kind: None },
        Subresource { name: "eviction", verbs: &["create"], kind: Some(("policy", "v1", "Eviction")) },
        Subresource { name: "exec", verbs: &["create", "get"], kind: Some(("", "v1", "PodExecOptions")) },
        Subresource { name: "log", verbs: &["get"], kind: None },
        Subresource { name: "portforward", verbs: &["create", "get"], kind: Some(("", "v1", "PodPortForwardOptions")) },
        Subresource {
            name: "proxy",
            verbs: &["create", "delete", "get", "patch", "update"],
            kind: Some(("", "v1", "PodProxyOptions")),
        },
        Subresource { name: "resize", verbs: &["get", "patch", "update"], kind: None },
        STATUS,
    ],
    storage: "pods",
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
    ..Kind::BASE
};
