//! Pod specs that are wrong, and what is said about them.

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::core::pod::KIND;
use serde_json::{Value, json};

/// A pod that is right but for `change`, a merge patch of its spec; lists are replaced as a whole.
fn pod(change: Value) -> Object {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {
        "serviceAccountName": "default", "containers": [{"name": "c", "image": "i:1"}],
        "volumes": [{"name": "v"}],
    }});
    for (key, value) in change.as_object().into_iter().flatten() {
        pod.set_at(&["spec", key], value.clone());
    }
    KIND.strategy.default(&mut pod);
    pod
}

fn errors_of(pod: &Object) -> String {
    let mut errors = Errors::new();
    KIND.strategy.validate(pod, &mut errors);
    KIND.strategy.validate_create(pod, &mut errors);
    if errors.is_empty() { String::new() } else { errors.to_string() }
}

/// The spec with this change gives exactly these errors.
#[track_caller]
fn check(change: Value, expected: &str) {
    assert_eq!(errors_of(&pod(change.clone())), expected, "{change}");
}

/// The same for a change of the only container.
#[track_caller]
fn check_container(change: Value, expected: &str) {
    let mut container = json!({"name": "c", "image": "i:1"});
    for (key, value) in change.as_object().into_iter().flatten() {
        container.set_at(&[key], value.clone());
    }
    check(json!({"containers": [container]}), expected);
}

#[test]
fn specs() {
    check(json!({}), "");
    check(json!({"containers": []}), "spec.containers: Required value");
    check(
        json!({"restartPolicy": "Sometimes"}),
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    );
    check(
        json!({"dnsPolicy": "None"}),
        "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
    );
    check(
        json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3"]}}),
        "spec.dnsConfig.nameservers[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or \
         2001:db8::ffff)",
    );
    check(json!({"dnsConfig": {"searches": [".", "_a.b_c.example."], "options": [{"name": "ndots"}]}}), "");
    check(
        json!({"activeDeadlineSeconds": 0}),
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
    );
    check(json!({"hostname": "a.b"}), "spec.hostname: Invalid value: \"a.b\": must not contain dots");
    check(
        json!({"hostAliases": [{"ip": "x", "hostnames": ["h"]}]}),
        "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    );
    check(
        json!({"nodeName": "n", "schedulingGates": [{"name": "g"}]}),
        "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
    );
    check(
        json!({"hostPID": true, "shareProcessNamespace": true}),
        "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot \
         both be enabled",
    );
    check(
        json!({"hostUsers": false, "hostNetwork": true}),
        "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false",
    );
    check(
        json!({"securityContext": {"runAsUser": -1, "sysctls": [{"name": "Net"}]}}),
        "[spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive, \
         spec.securityContext.sysctls[0].name: Invalid value: \"Net\": must have at most 253 characters and match \
         regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$]",
    );
}

#[test]
fn containers() {
    let two = |second: Value| json!({"containers": [{"name": "c", "image": "i"}, second]});
    check(two(json!({"name": "c", "image": "i"})), "spec.containers[1].name: Duplicate value: \"c\"");
    check(
        two(json!({"name": "C"})),
        "[spec.containers[1].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case \
         alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name' or \
         '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?'), spec.containers[1].image: \
         Required value]",
    );
    check_container(
        json!({"image": "i "}),
        "spec.containers[0].image: Invalid value: \"i \": must not have leading or trailing whitespace",
    );
    check_container(
        json!({"imagePullPolicy": "Maybe"}),
        "spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
         \"IfNotPresent\", \"Never\"",
    );
    check_container(
        json!({"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}, {"name": "-"}]}),
        "[spec.containers[0].ports[1].name: Duplicate value: \"a\", spec.containers[0].ports[2].name: Invalid value: \
         \"-\": must contain at least one letter (a-z), spec.containers[0].ports[2].name: Invalid value: \"-\": must \
         not begin or end with a hyphen, spec.containers[0].ports[2].containerPort: Required value]",
    );
    check_container(
        json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
        "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
    );
    check_container(
        json!({"ports": [{"containerPort": 70000, "protocol": "IP"}]}),
        "[spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive, \
         spec.containers[0].ports[0].protocol: Unsupported value: \"IP\": supported values: \"SCTP\", \"TCP\", \"UDP\"]",
    );
    check_container(
        json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
        "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: \
         cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    );
    check(
        json!({"initContainers": [{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]}),
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
         restartPolicy=Always",
    );
    let sidecar = json!({"name": "i", "image": "i", "restartPolicy": "Always",
        "readinessProbe": {"tcpSocket": {"port": 1}}});
    check(json!({"initContainers": [sidecar]}), "");
    check(
        json!({"ephemeralContainers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}),
        "[spec.ephemeralContainers[0].name: Duplicate value: \"c\", spec.ephemeralContainers[0].ports: Forbidden: \
         cannot be set for an Ephemeral Container, spec.ephemeralContainers: Forbidden: cannot be set on create]",
    );
}

#[test]
fn environment() {
    check_container(
        json!({"env": [{"name": "A=B", "value": "x"}]}),
        "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only \
         of printable ASCII characters other than '='",
    );
    let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
    check_container(from(json!({"fieldRef": {"fieldPath": "status.podIP"}})), "");
    check_container(from(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})), "");
    check_container(
        from(json!({"fieldRef": {"fieldPath": "spec.x"}})),
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting \
         fieldPath: field label not supported: spec.x",
    );
    check_container(
        from(json!({"fieldRef": {"fieldPath": "status.phase"}})),
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported \
         values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
         \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
    );
    check_container(
        from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
        "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's \
         values 1m and 1 are supported with the cpu resource",
    );
    check_container(
        from(json!({"secretKeyRef": {"name": "s"}, "configMapKeyRef": {"name": "c", "key": "k"}})),
        "[spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value, spec.containers[0].env[0].valueFrom: \
         Invalid value: \"\": may not have more than one field specified at a time]",
    );
    check_container(
        json!({"envFrom": [{"prefix": "P_"}]}),
        "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
    );
}

#[test]
fn resources() {
    let resources = |value: Value| json!({"resources": value});
    check_container(
        resources(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
        "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
    );
    check_container(
        resources(json!({"requests": {"memory": "-1"}})),
        "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
    );
    check_container(
        resources(json!({"requests": {"gpu": "1"}})),
        "[spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or \
         fully qualified, spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard \
         resource for containers]",
    );
    check_container(
        resources(json!({"limits": {"vendor.com/gpu": "500m"}})),
        "[spec.containers[0].resources.limits[vendor.com/gpu]: Invalid value: \"500m\": must be an integer, \
         spec.containers[0].resources.requests[vendor.com/gpu]: Invalid value: \"500m\": must be an integer]",
    );
    check_container(
        resources(json!({"requests": {"vendor.com/gpu": "1"}})),
        "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
    );
    let both = |pod: &str| {
        json!({"resources": {"requests": {"cpu": pod}},
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]})
    };
    check(both("1"), "");
    check(
        both("500m"),
        "spec.resources.requests[cpu]: Invalid value: \"500m\": must be greater than or equal to aggregate container \
         requests of 1",
    );
}

#[test]
fn volumes() {
    let mount = |mount: Value| json!({"volumeMounts": [mount]});
    check_container(mount(json!({"name": "v", "mountPath": "/x"})), "");
    check_container(
        mount(json!({"name": "w", "mountPath": "/x"})),
        "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
    );
    check_container(
        mount(json!({"name": "v", "mountPath": "/x", "subPath": "../y"})),
        "spec.containers[0].volumeMounts.subPath: Invalid value: \"../y\": must not contain '..'",
    );
    check_container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]}),
        "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
    );
    check_container(
        mount(json!({"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"})),
        "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available \
         only to privileged containers",
    );
    let volumes = |list: Value| json!({"volumes": list});
    check(
        volumes(json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}])),
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    );
    check(
        volumes(json!([{"name": "v", "hostPath": {"path": "/../x", "type": "Pipe"}}])),
        "[spec.volumes[0].hostPath.path: Invalid value: \"/../x\": must not contain '..', \
         spec.volumes[0].hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \
         \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"]",
    );
    check(
        volumes(json!([{"name": "v", "secret": {"defaultMode": 512, "items": [{"key": "k", "path": "/p"}]}}])),
        "[spec.volumes[0].secret.secretName: Required value, spec.volumes[0].secret.defaultMode: Invalid value: 512: \
         must be a number between 0 and 0777 (octal), both inclusive, spec.volumes[0].secret.items[0].path: Invalid \
         value: \"/p\": must be a relative path]",
    );
    check(
        volumes(json!([{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "expirationSeconds": 10}}]}}])),
        "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not \
         specify a duration less than 10 minutes",
    );
    let certificate = |seconds: i64| {
        volumes(json!([{"name": "v", "projected": {"sources": [{"podCertificate": {
            "signerName": "a.example/b", "keyType": "ED25519", "keyPath": "k", "maxExpirationSeconds": seconds}}]}}]))
    };
    let place = "spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value";
    check(certificate(3600), "");
    check(certificate(60), &format!("{place}: 60: if provided, maxExpirationSeconds must be >= 3600"));
    check(certificate(8_000_000), &format!("{place}: 8000000: if provided, maxExpirationSeconds must be <= 7862400"));
    check(
        volumes(json!([{"name": "v"}, {"name": "v"}, {"name": "w", "persistentVolumeClaim": {}}])),
        "[spec.volumes[1].name: Duplicate value: \"v\", spec.volumes[2].persistentVolumeClaim.claimName: Required \
         value]",
    );
}

#[test]
fn probes() {
    let probe = |probe: Value| json!({"livenessProbe": probe});
    check_container(probe(json!({"httpGet": {"port": "http"}})), "");
    check_container(probe(json!({})), "spec.containers[0].livenessProbe: Required value: must specify a handler type");
    check_container(
        probe(json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}, "successThreshold": 2})),
        "[spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type, \
         spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1]",
    );
    check_container(
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 40}}}}),
        "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 40: must be non-negative and less than \
         terminationGracePeriodSeconds (30)",
    );
}

#[test]
fn scheduling() {
    check(
        json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "operator": "Exists", "value": "b"}, {}]}),
        "[spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists', \
         spec.tolerations[2].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \
         \"match all values and all keys\"]",
    );
    check(
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}}}}),
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
         .matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
    );
    let anti = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 101, "podAffinityTerm": {"topologyKey": "k"}}]}});
    check(
        json!({"affinity": anti}),
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: \
         must be in the range 1-100",
    );
    check(
        json!({"topologySpreadConstraints": [{"topologyKey": "z", "maxSkew": 0, "whenUnsatisfiable": "DoNotSchedule"}]}),
        "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
    );
}

/// A stored pod, and what a write that changes it like this is told.
fn update(change: fn(&mut Object)) -> String {
    let old = pod(json!({"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 10,
        "schedulingGates": [{"name": "g"}]}));
    let mut new = old.clone();
    change(&mut new);
    let mut errors = Errors::new();
    KIND.strategy.validate_update(&new, &old, &mut errors);
    if errors.is_empty() { String::new() } else { errors.to_string() }
}

#[test]
fn updates() {
    assert_eq!(update(|pod| pod["spec"]["containers"][0]["image"] = "other".into()), "");
    assert_eq!(update(|pod| pod["spec"]["activeDeadlineSeconds"] = 5.into()), "");
    assert_eq!(
        update(|pod| pod["spec"]["activeDeadlineSeconds"] = 11.into()),
        "spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"
    );
    let more = json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
    assert_eq!(update(|pod| _ = pod["spec"].remove_at(&["schedulingGates"])), "");
    let added = {
        let old = pod(json!({"tolerations": [{"key": "a", "operator": "Exists"}]}));
        let new = pod(json!({"tolerations": more}));
        let mut errors = Errors::new();
        KIND.strategy.validate_update(&new, &old, &mut errors);
        errors
    };
    assert!(added.is_empty(), "{added}");
    assert_eq!(
        update(|pod| pod["spec"]["tolerations"] = json!([])),
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    );
    assert_eq!(
        update(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "h"}])),
        "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"
    );
    assert_eq!(
        update(|pod| pod["spec"]["containers"] = json!([])),
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    );
    let nodes = update(|pod| pod["spec"]["nodeName"] = "n".into());
    assert!(nodes.starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers"));
    assert!(nodes.ends_with("\n- nodeName: null\n+ nodeName: \"n\""), "{nodes}");
}
