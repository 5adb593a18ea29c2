//! What the server fills in.

use super::*;

/// The defaulted spec (or whole object, for kinds without one) is exactly this.
#[track_caller]
fn check_defaults(resource: &str, object: Value, part: &str, expected: Value) {
    let mut object = object;
    kind(resource).strategy.default(&mut object);
    let found = if part.is_empty() { object } else { object[part].clone() };
    assert_eq!(found, expected, "{resource}");
}

#[test]
fn defaults() {
    let spec = |spec: Value| json!({ "spec": spec });
    check_defaults(
        "deployments.apps",
        spec(json!({})),
        "spec",
        json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}),
    );
    check_defaults(
        "deployments.apps",
        spec(json!({"replicas": 0, "strategy": {"type": "Recreate"}})),
        "spec",
        json!({"replicas": 0, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "Recreate"}}),
    );
    check_defaults(
        "daemonsets.apps",
        spec(json!({})),
        "spec",
        json!({"revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}),
    );
    check_defaults(
        "statefulsets.apps",
        spec(json!({})),
        "spec",
        json!({"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}),
    );
    check_defaults(
        "jobs.batch",
        spec(json!({"parallelism": 2})),
        "spec",
        json!({"parallelism": 2, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed"}),
    );
    check_defaults(
        "services",
        spec(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]})),
        "spec",
        json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}),
    );
    check_defaults(
        "services",
        spec(json!({"type": "ExternalName", "externalName": "x"})),
        "spec",
        json!({"type": "ExternalName", "externalName": "x", "sessionAffinity": "None"}),
    );
    check_defaults(
        "secrets",
        json!({"stringData": {"a": "text"}, "data": {"a": "b2xk", "b": "Yg=="}}),
        "",
        json!({"type": "Opaque", "data": {"a": "dGV4dA==", "b": "Yg=="}}),
    );
    check_defaults(
        "namespaces",
        json!({"metadata": {"name": "n"}}),
        "",
        json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
            "status": {"phase": "Active"}}),
    );
    check_defaults(
        "networkpolicies.networking",
        spec(json!({"egress": [{"ports": [{"port": 53}]}]})),
        "spec",
        json!({"egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"]}),
    );
    check_defaults(
        "nodes",
        json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": "1"}}}),
        "",
        json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
            "status": {"capacity": {"cpu": "1"}, "allocatable": {"cpu": "1"}}}),
    );
    check_defaults(
        "rolebindings.rbac",
        json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "Group"}, {"kind": "ServiceAccount"}]}),
        "",
        json!({"roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount"}]}),
    );
    check_defaults(
        "limitranges",
        spec(json!({"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]})),
        "spec",
        json!({"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "default": {"cpu": "2"},
            "defaultRequest": {"cpu": "2"}}]}),
    );
}
