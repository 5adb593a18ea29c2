use super::changes::UNREAD_CHANGES;
use super::*;
use axum::body::Body;
use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio::sync::mpsc;

fn object(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": name,
        "resourceVersion": version.to_string(), "managedFields": [{"manager": "x"}],
        "annotations": {LAST_APPLIED: "{}", "kept": "1"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "owner", "controller": true}]}})
}

fn list_of(version: u64, items: Vec<Value>, next: &str) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

/// A server that answers what the test queues: one value a list, a stream of values a watch.
fn scripted(
    lists: Vec<Value>,
    watches: Vec<Vec<Value>>,
) -> (Client, mpsc::UnboundedReceiver<String>, mpsc::UnboundedSender<Value>) {
    let (seen, requests) = mpsc::unbounded_channel();
    let (live, rest) = mpsc::unbounded_channel::<Value>();
    let script = Arc::new(Mutex::new((VecDeque::from(lists), VecDeque::from(watches), Some(rest))));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut script = script.lock();
        let line = |v: Value| Ok::<_, std::io::Error>(bytes::Bytes::from(format!("{v}\n")));
        let body = if query.contains("watch=true") {
            let head = script.1.pop_front().map(futures::stream::iter).map(|s| s.map(line).left_stream());
            let tail = || {
                let rest = script.2.take().expect("one live watch");
                tokio_stream::wrappers::UnboundedReceiverStream::new(rest).map(line).right_stream()
            };
            Body::from_stream(head.unwrap_or_else(tail))
        } else {
            Body::from(script.0.pop_front().expect("a queued list").to_string())
        };
        let _ = seen.send(query);
        async move { Ok::<_, std::convert::Infallible>(Response::new(body)) }
    });
    (Client::new(service, "default"), requests, live)
}

fn names(cache: &Cache<ConfigMap>) -> Vec<String> {
    cache.list_in("ns").iter().map(|o| o.metadata.name.clone().unwrap()).collect()
}

#[tokio::test]
async fn lists_pages_watches_and_lists_again_when_expired() {
    let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "old"});
    let lists = vec![
        list_of(10, vec![object("a", 3)], "next"),
        list_of(10, vec![object("b", 4)], ""),
        list_of(20, vec![object("b", 4), object("d", 19)], ""),
    ];
    let watches =
        vec![vec![event("ADDED", object("c", 11)), event("DELETED", object("a", 12))], vec![event("ERROR", gone)]];
    let (client, mut requests, live) = scripted(lists, watches);
    let group = Group::root();
    let caches = Caches::new(client, group.clone());
    let cache = caches.of::<ConfigMap>();
    let mut changes = cache.subscribe();
    cache.reached(20).await;
    assert_eq!(names(&cache), ["b", "d"]);
    live.send(event("MODIFIED", object("d", 25))).unwrap();
    cache.reached(25).await;

    let mut told = Vec::new();
    while told.len() < 7 {
        let Some(Notice::Change(change)) = changes.next().await else { panic!("no resync expected") };
        told.push((change.key.name, change.old.is_some(), change.new.is_some()));
    }
    let expected = [("a", false, true), ("b", false, true), ("c", false, true), ("a", true, false)];
    assert_eq!(told[..4], expected.map(|(n, o, w)| (n.to_owned(), o, w)));
    assert_eq!(
        told[4..],
        [("c", true, false), ("d", false, true), ("d", true, true)].map(|(n, o, w)| (n.to_owned(), o, w))
    );

    let mut seen = Vec::new();
    while let Ok(query) = requests.try_recv() {
        seen.push(query);
    }
    assert!(seen[1].contains("continue=next"), "{seen:?}");
    assert!(seen[2].contains("resourceVersion=10") && seen[3].contains("resourceVersion=12"), "{seen:?}");
    assert!(!seen[4].contains("watch"), "a fresh list after 410: {seen:?}");

    let kept = cache.get("ns", "d").unwrap();
    assert!(kept.metadata.managed_fields.is_none());
    assert_eq!(kept.metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["kept"]);
    let owned = cache.by(&by_controller(), "owner");
    assert_eq!(owned.len(), 2);
    group.cancel();
    assert!(changes.next().await.is_none());
}

#[tokio::test]
async fn a_slow_reader_gets_one_resync() {
    let cache = Cache::<ConfigMap>::fixed([]);
    let mut changes = cache.subscribe();
    for n in 0..=UNREAD_CHANGES {
        let object: ConfigMap = serde_json::from_value(object(&n.to_string(), 1)).unwrap();
        cache.shared.state.write().set(Key::of(&object), Some(Arc::new(object)));
    }
    assert!(matches!(changes.next().await, Some(Notice::Resync)));
    assert!(changes.mailbox.pop().is_none());
}

#[test]
fn indexes_follow_changes() {
    let make = |name: &str, version| serde_json::from_value::<ConfigMap>(object(name, version)).unwrap();
    let cache = Cache::fixed([make("a", 1), make("b", 1)]);
    assert_eq!(cache.by(&by_controller(), "owner").len(), 2);
    let mut changed = make("a", 2);
    changed.metadata.owner_references = None;
    cache.shared.state.write().set(Key::of(&changed), Some(Arc::new(changed)));
    let left: Vec<_> = cache.by(&by_controller(), "owner").iter().map(|o| Key::of(o.as_ref())).collect();
    assert_eq!(left, [Key::new("ns", "b")]);
    assert!(cache.by(&by_controller(), "other").is_empty());
}

/// A Service whose condition has a time that is null is read; one that no decoder reads keeps the state it had, and the
/// changes behind it arrive.
#[tokio::test]
async fn an_object_that_cannot_be_read_stops_nothing() {
    use k8s_openapi::api::core::v1::Service;
    let service = |version: u64, status: Value| {
        let metadata = json!({"namespace": "ns", "name": "s", "resourceVersion": version.to_string()});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "status": status})
    };
    let condition = json!({"type": "T", "status": "True", "reason": "", "message": "", "lastTransitionTime": null});
    let (client, _requests, live) = scripted(vec![list_of(1, vec![service(1, json!({}))], "")], vec![]);
    let group = Group::root();
    let cache = Caches::new(client, group.clone()).of::<Service>();
    let version = |cache: &Cache<Service>| cache.get("ns", "s").and_then(|s| s.metadata.resource_version.clone());
    cache.reached(1).await;
    live.send(event("MODIFIED", service(2, json!({"conditions": [condition]})))).unwrap();
    cache.reached(2).await;
    assert_eq!(version(&cache).as_deref(), Some("2"));
    let conditions = cache.get("ns", "s").unwrap().status.clone().unwrap().conditions.unwrap();
    assert_eq!(conditions[0].type_, "T");
    assert_eq!(conditions[0].last_transition_time.0.to_string(), "0001-01-01T00:00:00Z");
    live.send(event("MODIFIED", service(3, json!({"conditions": "none"})))).unwrap();
    cache.reached(3).await;
    assert_eq!(version(&cache).as_deref(), Some("2"));
    live.send(event("MODIFIED", service(4, json!({})))).unwrap();
    cache.reached(4).await;
    assert_eq!(version(&cache).as_deref(), Some("4"));
    group.cancel();
}

/// A server that never answers.
fn silent() -> Client {
    let service = tower::service_fn(|_: Request<kube::client::Body>| {
        std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn what_was_known_last_is_there_without_the_server() {
    let scratch = tempfile::tempdir().unwrap();
    let vault = || Vault::open(scratch.path(), b"key").unwrap();
    let (client, _requests, _live) = scripted(vec![list_of(10, vec![object("a", 3), object("b", 4)], "")], vec![]);
    let group = Group::root();
    Caches::kept(client, vault(), group.clone()).of::<ConfigMap>().live().await;
    group.join(std::time::Duration::from_secs(10)).await.unwrap();

    let group = Group::root();
    let caches = Caches::kept(silent(), vault(), group.clone());
    let cache = caches.of::<ConfigMap>();
    assert!(!cache.is_synced());
    cache.synced().await;
    assert_eq!((names(&cache), cache.is_live()), (vec!["a".to_owned(), "b".to_owned()], false));

    // The server answers at last: what is as it was is no change.
    let mut changes = cache.subscribe();
    let mut filler = Filler { cache: cache.clone(), found: BTreeMap::new() };
    for (name, version) in [("b", 4), ("c", 9)] {
        filler.found(serde_json::from_value(object(name, version)).unwrap());
    }
    filler.listed(12);
    let told: Vec<_> =
        std::iter::from_fn(|| changes.next_change_now()).map(|c| (c.key.name, c.new.is_some())).collect();
    assert_eq!(told, [("a".to_owned(), false), ("c".to_owned(), true)]);
    assert!(cache.is_live() && !cache.recall(Vec::new()));
    group.cancel();

    // Another selection is another file.
    assert_ne!(recall::name::<ConfigMap>(""), recall::name::<ConfigMap>("metadata.name=a"));
}
