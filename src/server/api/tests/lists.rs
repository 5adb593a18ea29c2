use super::*;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_maps(count: usize) -> Server {
    let server = Server::ready().await;
    for i in 0..count {
        let object = json!({"metadata": {"name": format!("m{i:04}"), "labels": {"n": (i % 2).to_string()}}});
        server.post(CONFIG_MAPS, object).await.expect(201);
    }
    server
}

#[tokio::test]
async fn plain_and_selected() {
    let server = with_maps(4).await;
    let all = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!((all.body["kind"].as_str(), all.body["apiVersion"].as_str()), (Some("ConfigMapList"), Some("v1")));
    assert_eq!(all.names(), ["m0000", "m0001", "m0002", "m0003"]);
    assert!(all.body["items"][0].get("kind").is_none());
    assert!(all.body["items"][0]["metadata"]["resourceVersion"].is_string());
    assert_eq!(all.revision(), server.api.registry().store().revision().0);
    let cases = [
        ("labelSelector=n%3D1", vec!["m0001", "m0003"]),
        ("labelSelector=n%20in%20(0)", vec!["m0000", "m0002"]),
        ("fieldSelector=metadata.name%3Dm0002", vec!["m0002"]),
        ("fieldSelector=metadata.name!%3Dm0002&labelSelector=n%3D0", vec!["m0000"]),
        ("fieldSelector=metadata.name%3Dnone", vec![]),
    ];
    for (query, names) in cases {
        assert_eq!(server.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200).names(), names, "{query}");
        let everywhere = server.get(&format!("/api/v1/configmaps?{query}")).await.expect(200);
        assert_eq!(everywhere.names(), names, "{query}");
    }
    let refused = server.get(&format!("{CONFIG_MAPS}?fieldSelector=data.x%3Dy")).await.expect(400);
    assert_eq!(refused.message(), "field label not supported: data.x");
}

#[tokio::test]
async fn pages_come_from_one_snapshot() {
    let server = with_maps(5).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(first.names(), ["m0000", "m0001"]);
    assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
    let token = first.body["metadata"]["continue"].as_str().unwrap().to_owned();
    server.delete(&format!("{CONFIG_MAPS}/m0003"), json!({})).await.expect(200);
    server.config_map("m0002a", "new").await;
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(second.names(), ["m0002", "m0003"]);
    assert_eq!(second.revision(), first.revision());
    let token = second.body["metadata"]["continue"].as_str().unwrap();
    let last = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(last.names(), ["m0004"]);
    assert!(last.body["metadata"].get("continue").is_none());
    // Selected pages do not say how many are left.
    let selected = server.get(&format!("{CONFIG_MAPS}?limit=1&labelSelector=n%3D0")).await.expect(200);
    assert_eq!(selected.names(), ["m0000"]);
    assert!(selected.body["metadata"]["continue"].is_string());
    assert!(selected.body["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn expired_tokens_say_how_to_go_on() {
    let server = with_maps(3).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    server.config_map("x", "1").await;
    let store = server.api.registry().store();
    store.compact(store.revision()).await.unwrap();
    let expired = server.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!(expired.body["reason"], "Expired");
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = server.get(&format!("{CONFIG_MAPS}?continue={token}")).await.expect(200);
    assert_eq!(rest.names(), ["m0001", "m0002", "x"]);
    let exact = format!("{CONFIG_MAPS}?resourceVersion={}&resourceVersionMatch=Exact", first.revision());
    server.get(&exact).await.expect(410);
    server.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.expect(400);
}

#[tokio::test]
async fn resource_versions() {
    let server = with_maps(2).await;
    let before = server.api.registry().store().revision().0;
    server.config_map("z", "1").await;
    let exact = server.get(&format!("{CONFIG_MAPS}?resourceVersion={before}&resourceVersionMatch=Exact")).await;
    let exact = exact.expect(200);
    assert_eq!((exact.names().len(), exact.revision()), (2, before));
    let newer = server.get(&format!("{CONFIG_MAPS}?resourceVersion={before}")).await.expect(200);
    assert_eq!(newer.names().len(), 3);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?resourceVersion=0")).await.expect(200).names().len(), 3);
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/z")] {
        let future = server.get(&format!("{path}?resourceVersion=999999")).await.expect(504);
        assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(future.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn one_list_in_every_form() {
    let server = with_maps(3).await;
    let accept = |text: &'static str| [("accept", text)];
    let path = format!("{CONFIG_MAPS}?limit=2");
    let plain = server.get(&path).await.expect(200);
    let proto = server.raw("GET", &path, &accept("application/vnd.kubernetes.protobuf"), "").await;
    let bytes = proto.into_body().collect().await.unwrap().to_bytes();
    let decoded =
        crate::server::codec::decode_body(crate::server::codec::Format::Protobuf, &bytes, ("", "", "")).unwrap();
    assert_eq!(decoded.object["metadata"], plain.body["metadata"]);
    let names: Vec<_> =
        decoded.object["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(names, plain.names());
    let table =
        server.send("GET", &path, &accept("application/json;as=Table;v=v1;g=meta.k8s.io"), "").await.expect(200);
    assert_eq!(table.body["metadata"], plain.body["metadata"]);
    assert_eq!((table.body["kind"].as_str(), table.body["rows"].as_array().unwrap().len()), (Some("Table"), 2));
    let partial = accept("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let partial = server.send("GET", &path, &partial, "").await.expect(200);
    assert_eq!(partial.body["kind"], "PartialObjectMetadataList");
    assert_eq!((partial.names(), partial.body["items"][0].get("data")), (plain.names(), None));
    let pretty = server.get(&format!("{path}&pretty=1")).await.expect(200);
    assert_eq!(pretty.body, plain.body);
    assert!(pretty.text.contains("\n  "));
    let empty = server.get("/api/v1/namespaces/none/configmaps").await.expect(200);
    assert_eq!(empty.body["items"], json!([]));
}

#[tokio::test]
async fn long_lists_are_whole() {
    let server = with_maps(1203).await;
    let all = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(all.names().len(), 1203);
    // Over the network large answers are compressed.
    let mut request = Request::get(CONFIG_MAPS).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let groups = vec![UserInfo::MASTERS.to_owned()];
    let peer = crate::server::authn::PeerCertificate { user: "remote".into(), groups, fingerprint: String::new() };
    request.extensions_mut().insert(peer);
    let response = server.api.handle(request).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
    assert_eq!(text, all.text);
    let mut names: Vec<String> = Vec::new();
    let mut token = String::new();
    loop {
        let page = server.get(&format!("{CONFIG_MAPS}?limit=700&continue={token}")).await.expect(200);
        names.extend(page.names().into_iter().map(str::to_owned));
        match page.body["metadata"]["continue"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(names.len(), 1203);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?labelSelector=n%3D1")).await.expect(200).names().len(), 601);
}
