use super::*;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn create_owns_the_servers_fields() {
    let server = Server::ready().await;
    let given = json!({"metadata": {
        "name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9,
        "deletionTimestamp": "2001-01-01T00:00:00Z", "selfLink": "/x",
    }, "data": {"k": "v"}});
    let made = server.post(CONFIG_MAPS, given).await.expect(201);
    let metadata = &made.body["metadata"];
    assert_eq!((made.body["kind"].as_str(), made.body["apiVersion"].as_str()), (Some("ConfigMap"), Some("v1")));
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
    for absent in ["generation", "deletionTimestamp", "selfLink"] {
        assert!(metadata.get(absent).is_none(), "{absent}");
    }
    assert!(made.revision() > 0);
    let got = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(got.body, made.body);
    let again = server.post(CONFIG_MAPS, json!({"metadata": {"name": "a"}})).await.expect(409);
    assert_eq!(again.body["reason"], "AlreadyExists");
    assert_eq!(again.message(), "configmaps \"a\" already exists");
}

#[tokio::test]
async fn refusals() {
    let server = Server::ready().await;
    server.config_map("a", "1").await;
    let cm = |name: &str| json!({"metadata": {"name": name}});
    // method, path, body, code, reason, part of the message
    let cases: Vec<(&str, String, Value, u16, &str, &str)> = vec![
        ("GET", format!("{CONFIG_MAPS}/none"), Value::Null, 404, "NotFound", "configmaps \"none\" not found"),
        ("GET", "/api/v1/nonsense".into(), Value::Null, 404, "NotFound", "could not find the requested resource"),
        ("GET", "/apis/none/v1/x".into(), Value::Null, 404, "NotFound", "could not find the requested resource"),
        ("POST", format!("{CONFIG_MAPS}/a"), cm("a"), 405, "MethodNotAllowed", ""),
        ("POST", CONFIG_MAPS.into(), cm("Not_Valid"), 422, "Invalid", "metadata.name: Invalid value: \"Not_Valid\""),
        ("POST", CONFIG_MAPS.into(), json!({}), 422, "Invalid", "name or generateName is required"),
        (
            "POST",
            CONFIG_MAPS.into(),
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}}),
            400,
            "BadRequest",
            "cannot be handled as a ConfigMap",
        ),
        (
            "POST",
            CONFIG_MAPS.into(),
            json!({"metadata": {"name": "p", "namespace": "other"}}),
            400,
            "BadRequest",
            "does not match the namespace",
        ),
        (
            "POST",
            CONFIG_MAPS.into(),
            json!({"metadata": {"name": "p", "resourceVersion": "1"}}),
            400,
            "BadRequest",
            "resourceVersion should not be set",
        ),
        ("POST", format!("{CONFIG_MAPS}?dryRun=Some"), cm("b"), 422, "Invalid", "dryRun"),
        ("PUT", format!("{CONFIG_MAPS}/a"), cm("b"), 400, "BadRequest", "does not match the name on the URL"),
        ("PUT", format!("{CONFIG_MAPS}/none"), cm("none"), 404, "NotFound", ""),
        (
            "PUT",
            format!("{CONFIG_MAPS}/a"),
            json!({"metadata": {"name": "a", "resourceVersion": "1"}}),
            409,
            "Conflict",
            "the object has been modified",
        ),
        (
            "PUT",
            format!("{CONFIG_MAPS}/a"),
            json!({"metadata": {"name": "a", "uid": "x"}}),
            409,
            "Conflict",
            "Precondition failed: UID",
        ),
        (
            "DELETE",
            format!("{CONFIG_MAPS}/a"),
            json!({"preconditions": {"uid": "x"}}),
            409,
            "Conflict",
            "Precondition failed: UID",
        ),
        ("DELETE", format!("{CONFIG_MAPS}/none"), Value::Null, 404, "NotFound", ""),
    ];
    for (method, path, body, code, reason, message) in cases {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let got = server.send(method, &path, &[("content-type", "application/json")], body).await;
        assert_eq!((got.code, got.body["reason"].as_str()), (code, Some(reason)), "{method} {path}: {}", got.text);
        assert!(got.message().contains(message), "{method} {path}: {}", got.message());
        assert_eq!((got.body["kind"].as_str(), got.body["code"].as_u64()), (Some("Status"), Some(u64::from(code))));
    }
}

#[tokio::test]
async fn who_may_and_who_may_not() {
    let server = Server::ready().await;
    let request = |user: Option<UserInfo>| {
        let mut request = Request::get("/api/v1/namespaces/default/pods/x").body(Body::empty()).unwrap();
        if let Some(user) = user {
            request.extensions_mut().insert(LocalIdentity(user));
        }
        request
    };
    let nobody = read(server.api.handle(request(None)).await).await.expect(403);
    let text = "pods \"x\" is forbidden: User \"system:anonymous\" cannot get resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(nobody.message(), text);
    let jane = UserInfo::authenticated("jane", &["dev"]);
    assert!(read(server.api.handle(request(Some(jane))).await).await.expect(403).message().contains("User \"jane\""));
    let mut bad = request(None);
    bad.headers_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    read(server.api.handle(bad).await).await.expect(401);
}

#[tokio::test]
async fn updates_keep_identity_and_count_generations() {
    let server = Server::ready().await;
    let made = server.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    assert_eq!(made.body["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/d");
    // Unconditional PUT with nothing of the server's: as Helm does it.
    let mut bare = deployment("d");
    bare["spec"]["replicas"] = 5.into();
    let put = server.put(&path, bare.clone()).await.expect(200);
    assert_eq!(put.body["metadata"]["generation"], 2);
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(put.body["metadata"][field], made.body["metadata"][field], "{field}");
    }
    // The same again: no revision, no change.
    let same = server.put(&path, bare).await.expect(200);
    assert_eq!(same.revision(), put.revision());
    // Labels do not count, the status is not touched by a main write.
    let patch = json!({"metadata": {"labels": {"x": "y"}}, "status": {"replicas": 7}});
    let labelled = server.patch(&path, "merge-patch+json", patch).await.expect(200);
    assert_eq!(labelled.body["metadata"]["generation"], 2);
    assert_ne!(labelled.body["status"]["replicas"], 7);
    // The status write touches nothing else.
    let patch = json!({"spec": {"replicas": 1}, "status": {"replicas": 7}});
    let status = server.patch(&format!("{path}/status"), "merge-patch+json", patch).await.expect(200);
    assert_eq!(
        (status.body["status"]["replicas"].clone(), status.body["spec"]["replicas"].clone()),
        (7.into(), 5.into())
    );
    assert_eq!(status.body["metadata"]["generation"], 2);
}

#[tokio::test]
async fn generated_names() {
    let server = Server::ready().await;
    let object = json!({"metadata": {"generateName": "web-"}});
    let a = server.post(CONFIG_MAPS, object.clone()).await.expect(201);
    let b = server.post(CONFIG_MAPS, object).await.expect(201);
    let (a, b) = (a.body["metadata"]["name"].as_str().unwrap(), b.body["metadata"]["name"].as_str().unwrap());
    assert!(a != b && a.starts_with("web-") && a.len() == 9);
}

#[tokio::test]
async fn dry_run_stores_nothing() {
    let server = Server::ready().await;
    let before = server.api.registry().store().revision();
    let object = json!({"metadata": {"name": "a"}, "data": {"v": "1"}});
    let made = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), object).await.expect(201);
    assert_eq!(made.body["data"]["v"], "1");
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    assert_eq!(server.api.registry().store().revision(), before);
    server.config_map("b", "1").await;
    server
        .patch(&format!("{CONFIG_MAPS}/b?dryRun=All"), "merge-patch+json", json!({"data": {"v": "2"}}))
        .await
        .expect(200);
    server.delete(&format!("{CONFIG_MAPS}/b"), json!({"dryRun": ["All"]})).await.expect(200);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/b")).await.expect(200).body["data"]["v"], "1");
}

#[tokio::test]
async fn field_validation() {
    let server = Server::ready().await;
    let mut typo = deployment("d");
    typo["spec"]["replicaz"] = 3.into();
    let strict = server.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), typo.clone()).await.expect(400);
    assert!(strict.message().contains("unknown field \"spec.replicaz\""), "{}", strict.message());
    let warned = server.post(&format!("{DEPLOYMENTS}?fieldValidation=Warn"), typo).await.expect(201);
    let warning = warned.headers.get("warning").unwrap().to_str().unwrap();
    assert_eq!(warning, "299 - \"unknown field \\\"spec.replicaz\\\"\"");
    assert!(warned.body["spec"].get("replicaz").is_none());
}

#[tokio::test]
async fn four_kinds_of_patches() {
    let server = Server::ready().await;
    server.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]);
    assert_eq!(server.patch(&path, "json-patch+json", json_patch).await.expect(200).body["spec"]["replicas"], 4);
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}});
    let merged = server.patch(&path, "strategic-merge-patch+json", strategic).await.expect(200);
    assert_eq!(merged.body["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let merge = json!({"metadata": {"annotations": {"a": "b"}}});
    assert_eq!(
        server.patch(&path, "merge-patch+json", merge).await.expect(200).body["metadata"]["annotations"]["a"],
        "b"
    );
    server.patch(&path, "nonsense", json!({})).await.expect(415);
    server.patch(&path, "merge-patch+json", json!([])).await.expect(400);
    let test = json!([{"op": "test", "path": "/spec/replicas", "value": 99}]);
    server.patch(&path, "json-patch+json", test).await.expect(422);
    let stale = json!({"metadata": {"resourceVersion": "1"}});
    server.patch(&path, "merge-patch+json", stale).await.expect(409);
}

#[tokio::test]
async fn server_side_apply() {
    let server = Server::ready().await;
    let path = format!("{DEPLOYMENTS}/d");
    server.patch(&path, "apply-patch+yaml", deployment("d")).await.expect(422);
    let by = |manager: &str| format!("{path}?fieldManager={manager}");
    server.patch(&by("one"), "apply-patch+yaml", deployment("d")).await.expect(201);
    let same = server.patch(&by("one"), "apply-patch+yaml", deployment("d")).await.expect(200);
    let mut other = deployment("d");
    other["spec"]["replicas"] = 9.into();
    let conflict = server.patch(&by("two"), "apply-patch+yaml", other.clone()).await.expect(409);
    assert_eq!(conflict.body["details"]["causes"][0]["field"], ".spec.replicas");
    assert_eq!(same.revision(), server.get(&path).await.revision());
    let forced = server.patch(&format!("{}&force=true", by("two")), "apply-patch+yaml", other).await.expect(200);
    assert_eq!(forced.body["spec"]["replicas"], 9);
    let managers: Vec<&str> = forced.body["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["manager"].as_str())
        .collect();
    assert!(managers.contains(&"one") && managers.contains(&"two"), "{managers:?}");
    let force = format!("{path}?force=true");
    server.patch(&force, "merge-patch+json", json!({})).await.expect(422);
}

#[tokio::test]
async fn views_and_formats() {
    let server = Server::ready().await;
    server.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}/a");
    let with = |accept: &'static str| [("accept", accept)];
    let table = server
        .send("GET", CONFIG_MAPS, &with("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), "")
        .await;
    let table = table.expect(200);
    assert_eq!(table.body["kind"], "Table");
    assert_eq!(table.body["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table.body["rows"][0]["cells"][0], "a");
    assert_eq!(table.body["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial =
        server.send("GET", &path, &with("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), "").await;
    assert_eq!(partial.expect(200).body["kind"], "PartialObjectMetadata");
    let yaml = server.send("GET", &path, &with("application/yaml"), "").await.expect(200);
    assert!(yaml.text.contains("kind: ConfigMap"), "{}", yaml.text);
    let proto = server.raw("GET", &path, &with("application/vnd.kubernetes.protobuf"), "").await;
    assert_eq!(proto.headers()["content-type"], "application/vnd.kubernetes.protobuf");
    let bytes = proto.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&bytes[..4], b"k8s\0");
    let put = server.send("PUT", &path, &[("content-type", "application/vnd.kubernetes.protobuf")], bytes).await;
    assert_eq!(put.expect(200).body["data"]["v"], "1");
    server.send("GET", &path, &with("text/html"), "").await.expect(406);
    server.send("POST", CONFIG_MAPS, &[("content-type", "text/plain")], "x").await.expect(415);
    let big = json!({"metadata": {"name": "big"}, "data": {"v": "x".repeat(4 << 20)}});
    server.post(CONFIG_MAPS, big).await.expect(413);
}

#[tokio::test]
async fn paths_outside_resources() {
    let server = Server::new();
    server.get("/livez").await.expect(200);
    assert!(server.get("/readyz").await.expect(500).text.contains("[-]poststarthook/bootstrap failed"));
    server.api.set_ready();
    let version = server.get("/version").await.expect(200);
    assert_eq!((version.body["major"].as_str(), version.body["minor"].as_str()), (Some("1"), Some("37")));
    for path in ["/healthz", "/livez", "/readyz", "/livez/ping"] {
        assert_eq!(server.get(path).await.expect(200).text, "ok", "{path}");
    }
    assert!(server.get("/readyz?verbose").await.expect(200).text.contains("[+]etcd ok"));
    assert!(server.get("/metrics").await.expect(200).text.contains("apiserver_request_total{verb=\"GET\""));
    let with_id = server.send("GET", "/version", &[("audit-id", "abc")], "").await;
    assert_eq!(with_id.headers["audit-id"], "abc");
    server.api.shutdown();
    server.get("/readyz").await.expect(500);
    server.get("/livez").await.expect(200);
}

#[tokio::test]
async fn a_panic_is_one_requests_own() {
    let mut parts = Parts::new(Registry::new(Memory::open()));
    let broken: crate::server::api::Endpoint = Arc::new(|_, _| Box::pin(async { panic!("on purpose") }));
    parts.endpoints.push(("/broken", broken));
    let server = Server { api: Api::new(parts) };
    let answer = server.get("/broken/x").await.expect(500);
    assert_eq!(answer.body["reason"], "InternalError");
    server.get("/version").await.expect(200);
}

#[tokio::test]
async fn events_expire() {
    let server = Server::ready().await;
    let event = |name: &str, time: &str| {
        json!({
            "metadata": {"name": name}, "lastTimestamp": time, "reason": "R", "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        })
    };
    let events = "/api/v1/namespaces/default/events";
    let created = crate::time::now_seconds();
    for (name, time) in [("old", "2001-01-01T00:00:00Z"), ("new", "2999-01-01T00:00:00Z")] {
        server.post(events, event(name, time)).await.expect(201);
    }
    let registry = server.api.registry();
    let kind = registry.kind_of("", "events").unwrap();
    use crate::server::registry::expiry::expire;
    assert_eq!(expire(registry, kind, created - 1).await.unwrap(), 0);
    assert_eq!(expire(registry, kind, created + 3600).await.unwrap(), 1);
    assert_eq!(server.get(events).await.names(), ["new"]);
}

#[tokio::test]
async fn deprecated_kinds_warn() {
    let server = Server::ready().await;
    let list = server.get("/api/v1/namespaces/default/endpoints").await.expect(200);
    let warning = list.headers["warning"].to_str().unwrap();
    assert_eq!(warning, "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"");
}

#[tokio::test]
async fn events_have_two_views_of_one_store() {
    let server = Server::ready().await;
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Started", "message": "text", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    server.post("/api/v1/namespaces/default/events", event).await.expect(201);
    let view = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((view.body["note"].as_str(), view.body["regarding"]["name"].as_str()), (Some("text"), Some("p")));
    let list = server.get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp").await.expect(200);
    assert_eq!(list.body["items"][0]["note"], "text");
    let list = server.get("/api/v1/events?fieldSelector=involvedObject.name%3Dq").await.expect(200);
    assert!(list.names().is_empty());
}
