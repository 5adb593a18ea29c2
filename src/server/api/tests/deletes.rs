use super::*;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn immediate() {
    let server = Server::ready().await;
    let made = server.config_map("a", "1").await;
    let gone = server.delete(&format!("{CONFIG_MAPS}/a"), Value::Null).await.expect(200);
    assert_eq!((gone.body["kind"].as_str(), gone.body["status"].as_str()), (Some("Status"), Some("Success")));
    assert_eq!(gone.body["details"]["uid"], made.body["metadata"]["uid"]);
    assert_eq!(gone.body["details"]["kind"], "configmaps");
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold() {
    let server = Server::ready().await;
    let object = json!({"metadata": {"name": "a", "finalizers": ["x.io/hold"]}});
    server.post(CONFIG_MAPS, object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&path, json!({})).await.expect(200);
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = server.delete(&path, json!({})).await.expect(200);
    assert_eq!(again.revision(), marked.revision());
    let more = json!({"metadata": {"finalizers": ["x.io/hold", "x.io/more"]}});
    let refused = server.patch(&path, "merge-patch+json", more).await.expect(422);
    assert!(refused.message().contains("no new finalizers can be added"), "{}", refused.message());
    server.patch(&path, "merge-patch+json", json!({"metadata": {"finalizers": null}})).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn propagation() {
    let server = Server::ready().await;
    let finalizers = |a: &Answer| a.body["metadata"]["finalizers"].clone();
    for (policy, code, expected) in [("Foreground", 202, "foregroundDeletion"), ("Orphan", 200, "orphan")] {
        server.config_map("a", "1").await;
        let path = format!("{CONFIG_MAPS}/a");
        let marked = server.delete(&path, json!({"propagationPolicy": policy})).await.expect(code);
        assert_eq!(finalizers(&marked), json!([expected]));
        server.delete(&path, json!({"propagationPolicy": "Background"})).await.expect(200);
        server.get(&path).await.expect(404);
    }
    server.config_map("b", "1").await;
    let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
    server.delete(&format!("{CONFIG_MAPS}/b"), both).await.expect(422);
}

#[tokio::test]
async fn pods_go_gracefully() {
    let server = Server::ready().await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = "n".into();
    server.post(PODS, bound).await.expect(201);
    let path = format!("{PODS}/p");
    let marked = server.delete(&path, json!({})).await.expect(200);
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked.body["metadata"]["generation"], 2);
    let shorter = server.delete(&path, json!({"gracePeriodSeconds": 5})).await.expect(200);
    assert_eq!(shorter.body["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server.delete(&path, json!({"gracePeriodSeconds": 50})).await.expect(200);
    assert_eq!(longer.revision(), shorter.revision());
    server.delete(&path, json!({"gracePeriodSeconds": 0})).await.expect(200);
    server.get(&path).await.expect(404);
    // Never scheduled: nobody would end it, so it goes at once.
    server.post(PODS, pod("q")).await.expect(201);
    server.delete(&format!("{PODS}/q"), json!({})).await.expect(200);
    server.get(&format!("{PODS}/q")).await.expect(404);
}

#[tokio::test]
async fn collections() {
    let server = Server::ready().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
        server.post(CONFIG_MAPS, object).await.expect(201);
    }
    let gone = server.delete(&format!("{CONFIG_MAPS}?labelSelector=l%3Dx"), json!({})).await.expect(200);
    assert_eq!(gone.names(), ["a", "c"]);
    assert_eq!(server.get(CONFIG_MAPS).await.names(), ["b"]);
    server.delete("/api/v1/namespaces", json!({})).await.expect(405);
}

#[tokio::test]
async fn namespaces_are_finalized() {
    let server = Server::ready().await;
    let path = "/api/v1/namespaces/default";
    let made = server.get(path).await;
    assert_eq!(made.body["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = server.delete(path, json!({})).await.expect(200);
    assert_eq!(marked.body["status"]["phase"], "Terminating");
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string());
    server.delete(path, json!({})).await.expect(200);
    let mut last = marked.body.clone();
    last["spec"]["finalizers"] = json!([]);
    last["metadata"]["resourceVersion"] = server.get(path).await.body["metadata"]["resourceVersion"].clone();
    server.put(&format!("{path}/finalize"), last).await.expect(200);
    server.get(path).await.expect(404);
}
