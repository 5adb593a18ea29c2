use super::*;
use serde_json::{Value, json};

fn service(edit: impl FnOnce(&mut Value)) -> Service {
    let mut value = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.43.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    edit(&mut value);
    serde_json::from_value(value).unwrap()
}

fn pod(n: usize, edit: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let ip = format!("10.42.{}.{}", n / 250, n % 250 + 1);
    let mut value = json!({"metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("u{n:04}"),
            "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9000}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
    edit(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn planned(service: &Service, pods: &[Arc<Pod>], held: &[Arc<EndpointSlice>]) -> Changes {
    plan(service, &members::members(service, pods), held, &|node| (node == "n1").then(|| "z1".to_owned()))
}

/// What is held after a plan, names given as the server would.
fn after(plan: Changes, held: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
    let mut now: Vec<_> = held.iter().filter(|s| !plan.delete.iter().any(|d| Arc::ptr_eq(s, d))).cloned().collect();
    for (old, new) in plan.update {
        *now.iter_mut().find(|s| Arc::ptr_eq(s, &old)).unwrap() = Arc::new(new);
    }
    for mut slice in plan.create {
        slice.metadata.name = Some(format!("web-{:03}", now.len()));
        now.push(Arc::new(slice));
    }
    now
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

#[test]
fn an_endpoint_shows_its_pod() {
    let plan = planned(&service(|_| ()), &[pod(0, |_| ())], &[]);
    let slice = serde_json::to_value(&plan.create[0]).unwrap();
    let endpoint = json!({"addresses": ["10.42.0.1"], "nodeName": "n1", "zone": "z1",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": "ns", "name": "p0", "uid": "u0000"}});
    assert_eq!(slice["endpoints"], json!([endpoint]));
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", SERVICE: "web", MANAGED_BY: "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["name"], "web");
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let unready = |p: &mut Value| p["status"]["conditions"][0]["status"] = "False".into();
    let leaving = |p: &mut Value| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let pods = [pod(0, unready), pod(1, leaving), pod(2, |p| p["status"]["phase"] = "Failed".into())];
    let of = |service: &Service| {
        let plan = planned(service, &pods, &[]);
        let endpoints = plan.create[0].endpoints.clone().unwrap();
        endpoints.into_iter().map(|e| e.conditions.unwrap()).collect::<Vec<_>>()
    };
    let is = |ready, serving, terminating| EndpointConditions {
        ready: Some(ready),
        serving: Some(serving),
        terminating: Some(terminating),
    };
    assert_eq!(of(&service(|_| ())), [is(false, false, false), is(false, true, true)]);
    let all = service(|s| s["spec"]["publishNotReadyAddresses"] = true.into());
    assert_eq!(of(&all), [is(true, false, false), is(true, true, true)]);
}

#[test]
fn slices_hold_a_hundred_and_change_little() {
    let service = service(|_| ());
    let pods: Vec<_> = (0..250).map(|n| pod(n, |_| ())).collect();
    let held = after(planned(&service, &pods, &[]), &[]);
    assert_eq!(sizes(&held), [100, 100, 50]);
    let still = planned(&service, &pods, &held);
    assert!(still.create.is_empty() && still.update.is_empty() && still.delete.is_empty());
    let fewer = planned(&service, &pods[1..], &held);
    assert_eq!((fewer.update.len(), fewer.create.len(), fewer.delete.len()), (1, 0, 0));
    let held = after(fewer, &held);
    assert_eq!(sizes(&held), [99, 100, 50]);
    let more: Vec<_> = pods[1..].iter().cloned().chain([pod(300, |_| ())]).collect();
    let added = planned(&service, &more, &held);
    assert_eq!((added.update.len(), added.create.len()), (1, 0));
    let held = after(added, &held);
    let none = after(planned(&service, &[], &held), &held);
    assert_eq!(sizes(&none), [0], "one empty slice stays");
}

#[test]
fn named_ports_may_differ_by_pod() {
    let named = service(|s| s["spec"]["ports"][0]["targetPort"] = "web".into());
    let pods = [
        pod(0, |_| ()),
        pod(1, |p| p["spec"]["containers"][0]["ports"][0]["containerPort"] = 9001.into()),
        pod(2, |p| p["spec"]["containers"][0]["ports"] = json!([])),
    ];
    let plan = planned(&named, &pods, &[]);
    let mut ports: Vec<_> =
        plan.create.iter().map(|s| s.ports.as_ref().unwrap().first().and_then(|p| p.port)).collect();
    ports.sort();
    assert_eq!(ports, [None, Some(9000), Some(9001)]);
}

#[test]
fn headless_and_dual_stack() {
    let headless = service(|s| {
        s["spec"]["clusterIP"] = "None".into();
        s["spec"]["ports"] = Value::Null;
        s["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    });
    let both = pod(0, |p| {
        p["status"]["podIPs"] = json!([{"ip": "10.42.0.1"}, {"ip": "fd00::1"}]);
        p["spec"]["hostname"] = "db-0".into();
        p["spec"]["subdomain"] = "web".into();
    });
    let plan = planned(&headless, &[both], &[]);
    let told: Vec<_> =
        plan.create.iter().map(|s| (s.address_type.as_str(), s.endpoints.as_ref().unwrap()[0].clone())).collect();
    assert_eq!((told[0].0, told[1].0), ("IPv4", "IPv6"));
    assert_eq!(told[1].1.addresses, ["fd00::1"]);
    assert_eq!(told[0].1.hostname.as_deref(), Some("db-0"));
    assert!(plan.create[0].metadata.labels.as_ref().unwrap().contains_key(HEADLESS));
}

#[test]
fn traffic_distribution_becomes_hints() {
    let unready = |p: &mut Value| p["status"]["conditions"][0]["status"] = "False".into();
    let elsewhere = |p: &mut Value| p["spec"]["nodeName"] = "without-zone".into();
    let pods = [pod(0, |_| ()), pod(1, unready), pod(2, elsewhere)];
    let zone = json!([{"name": "z1"}]);
    let node = |name: &str| json!([{"name": name}]);
    for (asked, expected) in [
        ("PreferSameZone", [json!({"forZones": zone}), Value::Null, Value::Null]),
        ("PreferClose", [json!({"forZones": zone}), Value::Null, Value::Null]),
        (
            "PreferSameNode",
            [json!({"forZones": zone, "forNodes": node("n1")}), Value::Null, json!({"forNodes": node("without-zone")})],
        ),
        ("other", [Value::Null, Value::Null, Value::Null]),
    ] {
        let service = service(|s| s["spec"]["trafficDistribution"] = asked.into());
        let plan = planned(&service, &pods, &[]);
        let endpoints = plan.create[0].endpoints.clone().unwrap();
        let hints: Vec<_> = endpoints.iter().map(|e| serde_json::to_value(&e.hints).unwrap()).collect();
        assert_eq!(hints, expected, "{asked}");
    }
}
