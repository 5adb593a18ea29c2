use super::*;
use futures::StreamExt;
use std::time::Duration;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A running watch, read event by event.
struct Events {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Events {
    async fn open(server: &Server, path: &str, accept: &str) -> Self {
        let response = server.raw("GET", path, &[("accept", accept)], "").await;
        assert_eq!(response.status().as_u16(), 200);
        Events { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }

    /// The next event; None at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(Duration::from_secs(30), self.body.next()).await.expect("an event");
            self.rest.extend_from_slice(&chunk?.unwrap());
        }
    }

    /// Type and name of the next event.
    async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn brief(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_list_and_a_watch_lose_nothing() {
    let server = Server::ready().await;
    server.config_map("a", "1").await;
    let list = server.get(CONFIG_MAPS).await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", list.revision());
    let mut events = Events::open(&server, &path, "application/json").await;
    server.config_map("b", "1").await;
    server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"data": {"v": "2"}})).await.expect(200);
    server.delete(&format!("{CONFIG_MAPS}/b"), json!({})).await.expect(200);
    let deleted_at = server.api.registry().store().revision().0;
    assert_eq!(events.brief().await, brief("ADDED", "b"));
    let modified = events.next().await.unwrap();
    assert_eq!((modified["type"].as_str(), modified["object"]["data"]["v"].as_str()), (Some("MODIFIED"), Some("2")));
    assert_eq!(modified["object"]["kind"], "ConfigMap");
    let deleted = events.next().await.unwrap();
    assert_eq!((deleted["type"].as_str(), deleted["object"]["data"]["v"].as_str()), (Some("DELETED"), Some("1")));
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], deleted_at.to_string());
}

#[tokio::test]
async fn a_no_op_makes_no_event() {
    let server = Server::ready().await;
    server.config_map("a", "1").await;
    let mut events = Events::open(&server, &format!("{CONFIG_MAPS}?watch=true&resourceVersion=0"), "").await;
    assert_eq!(events.brief().await, brief("ADDED", "a"));
    let patch = json!({"data": {"v": "1"}});
    server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", patch).await.expect(200);
    server.config_map("z", "1").await;
    assert_eq!(events.brief().await, brief("ADDED", "z"));
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let server = Server::ready().await;
    let path = format!("{CONFIG_MAPS}?watch=true&labelSelector=l%3Dx");
    let mut events = Events::open(&server, &path, "").await;
    server.config_map("a", "1").await;
    let label = |value: Value| json!({"metadata": {"labels": {"l": value}}, "data": {"v": "2"}});
    let object = format!("{CONFIG_MAPS}/a");
    for value in [json!("x"), json!("y"), json!("x")] {
        server.patch(&object, "merge-patch+json", label(value)).await.expect(200);
    }
    server.patch(&object, "merge-patch+json", json!({"data": {"v": "3"}})).await.expect(200);
    server.delete(&object, json!({})).await.expect(200);
    for expected in ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(events.brief().await, brief(expected, "a"));
    }
}

#[tokio::test]
async fn watch_lists_mark_their_end() {
    let server = Server::ready().await;
    server.config_map("a", "1").await;
    server.config_map("b", "1").await;
    let path = format!(
        "{CONFIG_MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = Events::open(&server, &path, "").await;
    assert_eq!(events.brief().await, brief("ADDED", "a"));
    assert_eq!(events.brief().await, brief("ADDED", "b"));
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.config_map("c", "1").await;
    assert_eq!(events.brief().await, brief("ADDED", "c"));
    let refused = server.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(refused.code, 422);
}

#[tokio::test]
async fn bookmarks_and_the_end() {
    let server = Server::ready().await;
    let start = server.api.registry().store().revision();
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={start}&allowWatchBookmarks=true&timeoutSeconds=3");
    let mut events = Events::open(&server, &path, "").await;
    // A change elsewhere: the last bookmark shows that it is no loss.
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.expect(201);
    let now = server.api.registry().store().revision();
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], now.to_string());
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn too_old_is_said() {
    let server = Server::ready().await;
    let old = server.api.registry().store().revision();
    server.config_map("a", "1").await;
    server.config_map("b", "1").await;
    let store = server.api.registry().store();
    store.compact(store.revision()).await.unwrap();
    let expired = server.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={old}")).await.expect(410);
    assert_eq!(expired.body["reason"], "Expired");
}

#[tokio::test]
async fn one_object_and_other_views() {
    let server = Server::ready().await;
    let path = format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Db");
    let mut one = Events::open(&server, &path, "").await;
    let mut table = Events::open(&server, &path, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let mut partial =
        Events::open(&server, &path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    server.config_map("a", "1").await;
    server.config_map("b", "1").await;
    assert_eq!(one.brief().await, brief("ADDED", "b"));
    let first = table.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "b");
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    assert_eq!(partial.next().await.unwrap()["object"]["kind"], "PartialObjectMetadata");
    server.delete(&format!("{CONFIG_MAPS}/b"), json!({})).await.expect(200);
    let second = table.next().await.unwrap();
    assert_eq!(second["type"], "DELETED");
    assert!(second["object"]["columnDefinitions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let server = Server::ready().await;
    let mut events = Events::open(&server, &format!("{CONFIG_MAPS}?watch=true"), "").await;
    server.api.shutdown();
    assert!(events.next().await.is_none());
}
