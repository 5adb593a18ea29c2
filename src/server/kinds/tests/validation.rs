//! What is refused, and with which words.

use super::*;

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
