//! The table as data, and what holds for every kind.

use super::*;
use crate::object::ObjectExt;
use serde_json::json;

/// Group, version, plural, kind, scope, short names, categories, verbs, subresources with verbs: what upstream's
/// v1.37 discovery says of its GA resources.
const FACTS: &str = include_str!("facts.txt");

fn verbs(kind: &Kind) -> &'static str {
    match kind.verbs {
        Verbs::All => "create,delete,deletecollection,get,list,patch,update,watch",
        Verbs::NoCollectionDelete => "create,delete,get,list,patch,update,watch",
        Verbs::CreateOnly => "create",
        Verbs::ReadOnly => "get,list",
    }
}

/// The line of `facts.txt` that this kind would be.
fn fact(kind: &Kind) -> String {
    let or_dash = |s: String| if s.is_empty() { "-".to_owned() } else { s };
    let subresource = |s: &Subresource| format!("{}={}", s.name, s.verbs.join(","));
    let mut subresources: Vec<String> = kind.subresources.iter().map(subresource).collect();
    subresources.sort();
    [
        or_dash(kind.group.to_owned()),
        kind.version.to_owned(),
        kind.plural.to_owned(),
        kind.kind.to_owned(),
        if kind.is_namespaced() { "N" } else { "C" }.to_owned(),
        or_dash(kind.short_names.join(",")),
        or_dash(kind.categories.join(",")),
        verbs(kind).to_owned(),
        or_dash(subresources.join(";")),
    ]
    .join(" ")
}

#[test]
fn table_equals_upstreams_discovery() {
    let ours: Vec<String> = TABLE.iter().map(|kind| fact(kind)).collect();
    let facts: Vec<&str> = FACTS.lines().collect();
    assert_eq!(ours, facts);
    assert_eq!(facts.len(), 72);
}

#[test]
fn table_is_consistent() {
    for kind in TABLE {
        let id = format!("{}/{}/{}", kind.group, kind.version, kind.plural);
        assert_eq!(kind.singular, kind.kind.to_lowercase(), "{id}");
        assert_eq!(kind.storage.is_empty(), !kind.is_stored(), "{id}");
        for other in TABLE.iter().filter(|o| o.is_stored() && o.storage == kind.storage) {
            let shares = |a: &Kind, b: &Kind| a.conversion.is_some_and(|c| c.stored == (b.group, b.version));
            let same = std::ptr::eq(*other, *kind);
            assert!(same || shares(kind, other) || shares(other, kind), "{id} shares {}", kind.storage);
        }
    }
}

/// Samples that are as empty, as odd and as full as objects come.
fn samples() -> Vec<Object> {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "controller": true}]);
    let metadata = json!({"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z", "ownerReferences": owner});
    vec![
        json!({}),
        json!({"metadata": {"name": "x"}, "spec": null, "status": null}),
        json!({"metadata": metadata, "spec": {}, "status": {}}),
        json!({"metadata": [], "spec": [], "status": "", "webhooks": {}, "limits": 1, "subjects": ""}),
        json!({"metadata": metadata, "spec": {"template": {"spec": {"containers": [{}], "volumes": [{"name": "v"}]}}}}),
        json!({"metadata": metadata, "subsets": [{}], "ports": [{}], "endpoints": [{}], "subjects": [{}],
            "webhooks": [{"rules": [{}]}], "spec": {"containers": [{}], "metrics": [{}], "rules": [{}]}}),
    ]
}

#[test]
fn rows_have_a_cell_for_every_column() {
    for kind in TABLE {
        for sample in samples() {
            let cells = kind.strategy.row(&sample, 0).len();
            assert_eq!(cells, kind.columns.len(), "{} {}", kind.group, kind.plural);
        }
    }
}

#[test]
fn defaulting_twice_changes_nothing() {
    for kind in TABLE {
        for mut sample in samples() {
            kind.strategy.default(&mut sample);
            let once = sample.clone();
            kind.strategy.default(&mut sample);
            assert_eq!(sample, once, "{} {}", kind.group, kind.plural);
        }
    }
}

fn kind(group_and_plural: &str) -> &'static Kind {
    let (plural, group) = group_and_plural.split_once('.').unwrap_or((group_and_plural, ""));
    let found = TABLE
        .iter()
        .rev()
        .find(|k| k.plural == plural && (k.group == group || k.group.starts_with(&format!("{group}."))));
    found.unwrap_or_else(|| panic!("no kind {group_and_plural}"))
}

/// A named object, defaulted as the server does.
fn defaulted(kind: &Kind, mut object: Value) -> Object {
    object.set_at(&["metadata", "namespace"], "d".into());
    if object.name().is_empty() {
        object.set_at(&["metadata", "name"], "x".into());
    }
    object.set_at(&["metadata", "uid"], "u".into());
    kind.strategy.default(&mut object);
    object
}

fn shown(errors: &Errors) -> String {
    if errors.is_empty() { String::new() } else { errors.to_string() }
}

/// Creating this object gives exactly these errors.
#[track_caller]
fn check(resource: &str, object: Value, expected: &str) {
    let kind = kind(resource);
    let mut object = defaulted(kind, object);
    kind.strategy.prepare_create(&mut object);
    let mut errors = Errors::new();
    kind.strategy.validate(&object, &mut errors);
    kind.strategy.validate_create(&object, &mut errors);
    assert_eq!(shown(&errors), expected, "{resource} {object}");
}

/// Changing the first object into the second gives exactly these errors.
#[track_caller]
fn check_update(resource: &str, old: Value, new: Value, expected: &str) {
    let kind = kind(resource);
    let (old, mut new) = (defaulted(kind, old), defaulted(kind, new));
    kind.strategy.prepare_update(&mut new, &old);
    let mut errors = Errors::new();
    kind.strategy.validate(&new, &mut errors);
    kind.strategy.validate_update(&new, &old, &mut errors);
    assert_eq!(shown(&errors), expected, "{resource} {new}");
}

fn template(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// A workload with this selector and these template labels, and further fields of the spec.
fn workload(selector: Value, labels: Value, more: Value) -> Value {
    let mut object = json!({"spec": {"selector": selector, "template": template(labels)}});
    for (key, value) in more.as_object().into_iter().flatten() {
        object.set_at(&["spec", key], value.clone());
    }
    object
}

fn web(more: Value) -> Value {
    workload(json!({"matchLabels": {"app": "web"}}), json!({"app": "web"}), more)
}

#[test]
fn workloads_are_validated() {
    for resource in ["deployments.apps", "replicasets.apps", "daemonsets.apps", "statefulsets.apps"] {
        check(resource, web(json!({})), "");
        let mismatch = workload(json!({"matchLabels": {"app": "web"}}), json!({"app": "other"}), json!({}));
        let why = "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match \
                   template `labels`";
        check(resource, mismatch, why);
        let mut never = web(json!({}));
        never.set_at(&["spec", "template", "spec", "restartPolicy"], "Never".into());
        let why = "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"";
        check(resource, never, why);
    }
    let other = workload(json!({"matchLabels": {"a": "b"}}), json!({"app": "web", "a": "b"}), json!({}));
    for resource in ["deployments.apps", "replicasets.apps", "daemonsets.apps"] {
        let why = "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable";
        check_update(resource, web(json!({})), other.clone(), why);
    }
    check_update(
        "statefulsets.apps",
        web(json!({})),
        other,
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
         forbidden",
    );
    check(
        "deployments.apps",
        web(json!({"replicas": -1})),
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    check("deployments.apps", json!({"spec": {"template": template(json!({}))}}), "spec.selector: Required value");
    check(
        "deployments.apps",
        web(json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}})),
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
    );
    check(
        "deployments.apps",
        web(json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}})),
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    );
    let mut mounts = web(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
    mounts["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/d"}]);
    check("statefulsets.apps", mounts, "");
}

#[test]
fn jobs_are_validated() {
    let job = |more: Value| {
        let mut object = json!({"spec": {"template": template(json!({}))}});
        object.set_at(&["spec", "template", "spec", "restartPolicy"], "Never".into());
        for (key, value) in more.as_object().into_iter().flatten() {
            object.set_at(&["spec", key], value.clone());
        }
        object
    };
    check("jobs.batch", job(json!({})), "");
    check(
        "jobs.batch",
        json!({"spec": {"template": template(json!({}))}}),
        "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
    );
    check(
        "jobs.batch",
        job(json!({"completionMode": "Indexed", "parallelism": 1})),
        "spec.completions: Required value: when completion mode is Indexed",
    );
    let cron = |schedule: &str, more: Value| {
        let mut object = json!({"spec": {"schedule": schedule, "jobTemplate": job(json!({}))}});
        for (key, value) in more.as_object().into_iter().flatten() {
            object.set_at(&["spec", key], value.clone());
        }
        object
    };
    check("cronjobs.batch", cron("*/5 * * * *", json!({"timeZone": "Etc/UTC"})), "");
    check(
        "cronjobs.batch",
        cron("often", json!({})),
        "spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: [often]",
    );
    check(
        "cronjobs.batch",
        cron("TZ=UTC * * * * *", json!({"timeZone": "Mars/Base"})),
        "[spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field \
         instead, spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base]",
    );
}

#[test]
fn services_are_validated() {
    let service = |spec: Value| json!({"spec": spec});
    check("services", service(json!({"ports": [{"port": 80}]})), "");
    check("services", service(json!({})), "spec.ports: Required value");
    check(
        "services",
        service(json!({"ports": [{"port": 80}, {"port": 0, "name": "b", "targetPort": "a_b"}]})),
        "[spec.ports[0].name: Required value, spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, \
         inclusive, spec.ports[1].targetPort: Invalid value: \"a_b\": must contain only alpha-numeric characters \
         (a-z, 0-9), and hyphens (-)]",
    );
    check(
        "services",
        service(json!({"type": "Magic", "ports": [{"port": 80}]})),
        "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
         \"LoadBalancer\", \"NodePort\"",
    );
    check(
        "services",
        service(json!({"type": "ExternalName", "externalName": "Bad"})),
        "spec.externalName: Invalid value: \"Bad\": a lowercase RFC 1123 subdomain must consist of lower case \
         alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    check(
        "services",
        service(json!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]})),
        "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
    );
    check(
        "services",
        service(json!({"ports": [{"port": 80}], "loadBalancerClass": "x/y"})),
        "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
    );
    let at = |ip: &str| service(json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}));
    check_update(
        "services",
        at("10.43.0.5"),
        at("10.43.0.6"),
        "spec.clusterIPs[0]: Invalid value: [\"10.43.0.6\"]: may not change once set",
    );
    let balancer = json!({"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]});
    let old = service(balancer);
    let new = service(json!({"ports": [{"port": 80, "nodePort": 30080}], "externalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": true}));
    check_update("services", old, new, "");
}

#[test]
fn other_core_kinds_are_validated() {
    check(
        "configmaps",
        json!({"data": {"a/b": "x", "k": "v"}, "binaryData": {"k": ""}}),
        "[data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or \
         '.' (e.g. 'key.name' or 'KEY_NAME' or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+'), data[k]: \
         Invalid value: \"k\": duplicate of key present in binaryData]",
    );
    let immutable = |value: &str| json!({"immutable": true, "data": {"k": value}});
    let why = "data: Forbidden: field is immutable when `immutable` is set";
    check_update("configmaps", immutable("dg=="), immutable("dw=="), why);
    check_update("secrets", immutable("dg=="), immutable("dw=="), why);
    check_update("secrets", json!({}), json!({"type": "other"}), "type: Invalid value: \"other\": field is immutable");
    check(
        "secrets",
        json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "x"}}),
        "data[tls.key]: Required value",
    );
    check(
        "namespaces",
        json!({"spec": {"finalizers": ["mine"]}}),
        "spec.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully \
         qualified",
    );
    check(
        "nodes",
        json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"], "taints": [{"key": "a", "effect": "Never"}]}}),
        "[metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \
         \"PreferNoSchedule\", \"NoExecute\", spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may \
         specify no more than one CIDR for each IP family]",
    );
    check_update(
        "nodes",
        json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
        json!({"spec": {"podCIDR": "10.0.1.0/24"}}),
        "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
    );
    check(
        "endpoints",
        json!({"subsets": [{"ports": [{"port": 0}]}, {"addresses": [{"ip": "169.254.0.1"}]}]}),
        "[subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`, subsets[0].ports[0].port: \
         Invalid value: 0: must be between 1 and 65535, inclusive, subsets[1].addresses[0].ip: Invalid value: \
         \"169.254.0.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)]",
    );
    check(
        "events",
        json!({"involvedObject": {"namespace": "other"}}),
        "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
    );
    check(
        "persistentvolumeclaims",
        json!({"spec": {"accessModes": ["ReadSometimes"]}}),
        "[spec.accessModes: Unsupported value: \"ReadSometimes\": supported values: \"ReadOnlyMany\", \
         \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\", spec.resources[storage]: Required value]",
    );
    check(
        "persistentvolumes",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": "/x"}}}),
        "spec.nodeAffinity: Required value: Local volume requires node affinity",
    );
    check(
        "limitranges",
        json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}),
        "[spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1, \
         spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value \
         1, spec.limits[0].default[cpu]: Invalid value: \"1\": min value 2 is greater than default value 1]",
    );
    check(
        "resourcequotas",
        json!({"spec": {"hard": {"pods": "1.5", "count/jobs.batch": "3"}, "scopes": ["BestEffort", "NotBestEffort"]}}),
        "[spec.hard[pods]: Invalid value: \"1500m\": must be an integer, spec.scopes: Invalid value: \
         [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes]",
    );
}

#[test]
fn other_groups_are_validated() {
    check(
        "roles.rbac",
        json!({"rules": [{"resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        "[rules[0].verbs: Required value: verbs must contain at least one value, rules[0].apiGroups: Required value: \
         resource rules must supply at least one api group, rules[1].nonResourceURLs: Invalid value: [\"/x\"]: \
         namespaced rules cannot apply to non-resource URLs]",
    );
    let binding = |role: &str| {
        json!({"roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": "u"}]})
    };
    check("rolebindings.rbac", binding("a"), "");
    check_update(
        "clusterrolebindings.rbac",
        binding("a"),
        binding("b"),
        "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"b\"}: \
         cannot change roleRef",
    );
    check(
        "clusterrolebindings.rbac",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
        "[roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\", subjects[0].namespace: \
         Required value]",
    );
    check(
        "endpointslices.discovery",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}, {}], "ports": [{}, {}]}),
        "[endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address, \
         endpoints[1].addresses: Required value: must contain at least 1 address, ports[1].name: Duplicate value: \"\"]",
    );
    check(
        "leases.coordination",
        json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 0}}),
        "[spec.holderIdentity: Invalid value: \"\": must not be empty, spec.leaseDurationSeconds: Invalid value: 0: \
         must be greater than 0]",
    );
    check(
        "ingresses.networking",
        json!({"spec": {"rules": [{"host": "*", "http": {"paths": [
            {"path": "/a", "backend": {}}, {"path": "a//b", "pathType": "Prefix", "backend": {"service":
            {"name": "s", "port": {}}}}]}}]}}),
        "[spec.rules[0].host: Invalid value: \"*\": a wildcard DNS-1123 subdomain must start with '*.', followed by a \
         valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an \
         alphanumeric character (e.g. '*.example.com', regex used for validation is \
         '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), \
         spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified, \
         spec.rules[0].http.paths[1].path: Invalid value: \"a//b\": must be an absolute path, \
         spec.rules[0].http.paths[1].path: Invalid value: \"a//b\": must not contain '//', \
         spec.rules[0].http.paths[1].backend: Required value: port name or number is required]",
    );
    check(
        "networkpolicies.networking",
        json!({"spec": {"ingress": [{"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
        "[spec.ingress[0].from[0]: Required value: must specify a peer, spec.ingress[0].from[1].ipBlock.except[0]: \
         Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`]",
    );
    check(
        "horizontalpodautoscalers.autoscaling",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 5, "maxReplicas": 2}}),
        "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
    );
    check(
        "poddisruptionbudgets.policy",
        json!({"spec": {"minAvailable": "200%"}}),
        "spec.minAvailable: Invalid value: \"200%\": must not be greater than 100%",
    );
    check(
        "priorityclasses.scheduling",
        json!({"metadata": {"name": "system-mine"}, "value": 1}),
        "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
         error: system-mine is not a known system priority class",
    );
    check(
        "priorityclasses.scheduling",
        json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
        "",
    );
    let class = |policy: &str| json!({"provisioner": "p", "reclaimPolicy": policy});
    check_update(
        "storageclasses.storage",
        class("Delete"),
        class("Retain"),
        "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
    );
    check(
        "validatingwebhookconfigurations.admissionregistration",
        json!({"webhooks": [{"name": "a.b", "clientConfig": {"url": "http://x"}, "admissionReviewVersions": ["v2"],
            "timeoutSeconds": 60}]}),
        "[webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by \
         dots, webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun, \
         webhooks[0].timeoutSeconds: Invalid value: 60: the timeout value must be between 1 and 30 seconds, \
         webhooks[0].clientConfig.url: Invalid value: \"http://x\": 'https' is the only allowed URL scheme; desired \
         format: https://host[/path], webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at \
         least one of v1, v1beta1]",
    );
    check(
        "customresourcedefinitions.apiextensions",
        json!({"metadata": {"name": "as.b"}, "spec": {"group": "b.c", "scope": "Namespaced",
            "names": {"plural": "as", "kind": "A"}, "versions": [{"name": "v1", "served": true}]}}),
        "[spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required, spec.versions: Invalid \
         value: [{\"name\":\"v1\",\"served\":true}]: must have exactly one version marked as storage version, \
         metadata.name: Invalid value: \"as.b\": must be spec.names.plural+\".\"+spec.group]",
    );
    check(
        "certificatesigningrequests.certificates",
        json!({"spec": {"request": "eA==", "signerName": "kubernetes.io/kubelet-serving", "usages": ["fun"]}}),
        "[spec.request: Invalid value: \"<PEM>\": PEM block type must be CERTIFICATE REQUEST, spec.usages[0]: \
         Unsupported value: \"fun\": supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \
         \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \
         \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key \
         agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \
         \"server auth\", \"signing\", \"timestamping\"]",
    );
}

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

/// Cells of the row, and what they say.
#[track_caller]
fn check_row(resource: &str, object: Value, expected: &[Value]) {
    let mut object = object;
    object.set_at(&["metadata", "name"], "x".into());
    object.set_at(&["metadata", "creationTimestamp"], "2024-01-01T00:00:00Z".into());
    assert_eq!(kind(resource).strategy.row(&object, 1_704_067_200 + 300), expected, "{resource}");
}

#[test]
fn rows() {
    let template = template(json!({}));
    let selector = json!({"matchLabels": {"app": "web"}});
    check_row(
        "deployments.apps",
        json!({"spec": {"replicas": 3, "selector": selector, "template": template},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
        &["x".into(), "1/3".into(), 2.into(), 1.into(), "5m".into(), "c".into(), "i".into(), "app=web".into()],
    );
    check_row(
        "services",
        json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.9", "selector": {"app": "web"}, "ports": [
            {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        &["x", "NodePort", "10.43.0.9", "<none>", "80:30080/TCP,53/UDP", "5m", "app=web"].map(Value::from),
    );
    check_row(
        "services",
        json!({"spec": {"type": "LoadBalancer"}}),
        &["x", "LoadBalancer", "<none>", "<pending>", "<none>", "5m", "<none>"].map(Value::from),
    );
    check_row(
        "nodes",
        json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
        &[
            "x",
            "Ready,SchedulingDisabled",
            "edge,worker",
            "5m",
            "v1",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>",
        ]
        .map(Value::from),
    );
    check_row(
        "endpoints",
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "ports": [{"port": 80}, {"port": 443}]}]}),
        &["x", "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more...", "5m"].map(Value::from),
    );
    check_row(
        "endpointslices.discovery",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}, {}]}),
        &["x", "IPv4", "80,*", "10.0.0.1", "5m"].map(Value::from),
    );
    let event = json!({"involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal", "reason": "Pulled",
        "message": " text\n", "source": {"component": "kubelet", "host": "n"}, "count": 2,
        "firstTimestamp": "2024-01-01T00:01:00Z", "lastTimestamp": "2024-01-01T00:04:00Z"});
    check_row(
        "events",
        event,
        &[
            "60s".into(),
            "Normal".into(),
            "Pulled".into(),
            "pod/p".into(),
            "".into(),
            "kubelet, n".into(),
            "text".into(),
            "4m".into(),
            2.into(),
            "x".into(),
        ],
    );
    check_row(
        "jobs.batch",
        json!({"spec": {"completions": 3, "template": template}, "status": {"succeeded": 1,
            "startTime": "2024-01-01T00:00:00Z", "completionTime": "2024-01-01T00:02:30Z",
            "conditions": [{"type": "Complete", "status": "True"}]}}),
        &["x", "Complete", "1/3", "2m30s", "5m", "c", "i", "<none>"].map(Value::from),
    );
    check_row(
        "persistentvolumeclaims",
        json!({"spec": {"volumeName": "v", "storageClassName": "local", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound", "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"]}}),
        &["x", "Bound", "v", "1Gi", "RWO", "local", "<unset>", "5m", "Filesystem"].map(Value::from),
    );
    check_row(
        "horizontalpodautoscalers.autoscaling",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]},
            "status": {"currentReplicas": 2}}),
        &[
            "x".into(),
            "Deployment/d".into(),
            "cpu: <unknown>/80%".into(),
            "1".into(),
            "4".into(),
            2.into(),
            "5m".into(),
        ],
    );
    check_row(
        "ingresses.networking",
        json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]}}),
        &["x", "<none>", "a,b,c + 1 more...", "", "80, 443", "5m"].map(Value::from),
    );
}

#[test]
fn grace_periods() {
    let pod = |node: &str, phase: &str, seconds: i64| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": seconds}, "status": {"phase": phase}});
    for (pod, requested, expected) in [
        (pod("n", "Running", 30), None, 30),
        (pod("n", "Running", 30), Some(5), 5),
        (pod("n", "Running", 30), Some(0), 0),
        (pod("n", "Running", -1), None, 1),
        (pod("", "Pending", 30), None, 0),
        (pod("n", "Succeeded", 30), Some(10), 0),
    ] {
        let grace = kind("pods").strategy.grace(&pod, requested);
        assert_eq!(grace, Grace::Seconds(expected), "{pod} {requested:?}");
    }
}
