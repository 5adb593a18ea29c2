//! What kubectl shows, and how long deletions take.

use super::*;

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
