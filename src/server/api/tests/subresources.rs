use super::*;
use base64::Engine;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn scale() {
    let server = Server::ready().await;
    server.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let got = server.get(&path).await.expect(200);
    assert_eq!((got.body["kind"].as_str(), got.body["apiVersion"].as_str()), (Some("Scale"), Some("autoscaling/v1")));
    assert_eq!(
        (got.body["spec"]["replicas"].clone(), got.body["status"]["selector"].clone()),
        (2.into(), "app=d".into())
    );
    let scaled = server.patch(&path, "merge-patch+json", json!({"spec": {"replicas": 7}})).await.expect(200);
    assert_eq!(scaled.body["spec"]["replicas"], 7);
    let object = server.get(&format!("{DEPLOYMENTS}/d")).await;
    assert_eq!(
        (object.body["spec"]["replicas"].clone(), object.body["metadata"]["generation"].clone()),
        (7.into(), 2.into())
    );
    let mut stale = got.body.clone();
    stale["spec"]["replicas"] = 1.into();
    server.put(&path, stale).await.expect(409);
    server.patch(&path, "merge-patch+json", json!({"spec": {"replicas": -1}})).await.expect(422);
    server.get("/api/v1/namespaces/default/configmaps/x/scale").await.expect(404);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::ready().await;
    server.post(PODS, pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "annotations": {"a": "b"}},
        "target": {"kind": "Node", "name": "n1"}});
    let done = server.post(&format!("{PODS}/p/binding"), binding.clone()).await.expect(201);
    assert_eq!((done.body["kind"].as_str(), done.body["status"].as_str()), (Some("Status"), Some("Success")));
    let bound = server.get(&format!("{PODS}/p")).await;
    assert_eq!(bound.body["spec"]["nodeName"], "n1");
    assert_eq!(bound.body["metadata"]["annotations"]["a"], "b");
    let conditions = bound.body["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"));
    let again = server.post(&format!("{PODS}/p/binding"), binding).await.expect(409);
    assert!(again.message().contains("already assigned to node"), "{}", again.message());
    let nowhere = json!({"metadata": {"name": "p"}, "target": {}});
    server.post("/api/v1/namespaces/default/bindings", nowhere).await.expect(422);
    let selected = server.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.expect(200);
    assert_eq!(selected.names(), ["p"]);
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let server = Server::ready().await;
    let mut running = pod("p");
    running["spec"]["nodeName"] = "n".into();
    server.post(PODS, running).await.expect(201);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server.patch(&format!("{PODS}/p/status"), "merge-patch+json", status).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    server.post(budgets, budget).await.expect(201);
    let counted = |allowed: u32| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed,
        "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}})
    };
    let set = |allowed| {
        server.patch(
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status",
            "merge-patch+json",
            counted(allowed),
        )
    };
    set(0).await.expect(200);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = server.post(&format!("{PODS}/p/eviction"), eviction.clone()).await.expect(429);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "DisruptionBudget");
    set(1).await.expect(200);
    server.post(&format!("{PODS}/p/eviction"), eviction).await.expect(201);
    assert!(server.get(&format!("{PODS}/p")).await.body["metadata"]["deletionTimestamp"].is_string());
    let spent = server.get(&format!("{budgets}/b")).await;
    assert_eq!(spent.body["status"]["disruptionsAllowed"].as_u64().unwrap_or(0), 0);
}

#[tokio::test]
async fn reviews_are_answered_and_not_stored() {
    let server = Server::ready().await;
    let before = server.api.registry().store().revision();
    let who = server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.expect(201);
    assert_eq!(who.body["status"]["userInfo"]["username"], "admin");
    let ask = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let may = server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", ask).await.expect(201);
    assert_eq!(may.body["status"]["allowed"], true);
    let ask = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let may = server.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", ask).await.expect(201);
    assert_eq!(may.body["status"]["allowed"], false);
    server.get("/apis/authorization.k8s.io/v1/subjectaccessreviews").await.expect(405);
    assert_eq!(server.api.registry().store().revision(), before);
}

#[tokio::test]
async fn approvals_change_conditions_only() {
    let server = Server::ready().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::prelude::BASE64_STANDARD.encode(request);
    let csr = json!({"metadata": {"name": "c"}, "spec": {
        "request": request, "signerName": "example.com/x", "usages": ["client auth"]}});
    let mut approved = server.post(path, csr).await.expect(201).body;
    approved["spec"]["signerName"] = "example.com/other".into();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]});
    let put = server.put(&format!("{path}/c/approval"), approved).await.expect(200);
    assert_eq!(put.body["status"]["conditions"][0]["type"], "Approved");
    assert!(put.body["status"]["conditions"][0]["lastUpdateTime"].is_string());
    assert_eq!(put.body["spec"]["signerName"], "example.com/x");

    // Labels and annotations are the writer's, however it writes.
    let times = put.body["status"]["conditions"].clone();
    let patch = json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"signerName": "example.com/other"}});
    let patched = server.patch(&format!("{path}/c/approval"), "merge-patch+json", patch).await.expect(200).body;
    assert_eq!(patched["metadata"]["annotations"]["a"], "1");
    assert_eq!(patched["spec"]["signerName"], "example.com/x");
    assert_eq!(patched["status"]["conditions"], times);
}
