use super::*;
use crate::store::memory::Memory;

const SECRET: &str = "/registry/secrets/default/a";

async fn put(store: &dyn Store, key: &str, value: &str) -> TxnResponse {
    let ops = vec![Op::put(key.to_owned(), value.to_owned())];
    store.txn(Txn { success: ops, ..Txn::default() }).await.expect("writes")
}

async fn get(store: &dyn Store, key: &str) -> Bytes {
    let read = store.range(RangeRequest::of(KeyRange::key(key.to_owned()))).await.expect("reads");
    read.kvs.first().map(|kv| kv.value.clone()).unwrap_or_default()
}

#[tokio::test]
async fn only_the_store_sees_ciphertext() {
    let scratch = tempfile::tempdir().expect("scratch");
    let inner = Memory::open();
    let sealed = Sealed::over(inner.clone(), scratch.path()).expect("opens");
    let mut watch = sealed.watch(KeyRange::prefix("/registry/"), None).await.expect("watches");
    put(&*sealed, SECRET, "one").await;
    put(&*sealed, "/registry/configmaps/default/a", "plain").await;
    let answer = put(&*sealed, SECRET, "two").await;
    let Some(OpResponse::Put { previous: Some(previous) }) = answer.responses.first() else { panic!("{answer:?}") };
    assert_eq!(previous.value, "one");
    assert_eq!(
        (get(&*sealed, SECRET).await, get(&*sealed, "/registry/configmaps/default/a").await),
        ("two".into(), "plain".into())
    );
    let stored = get(&*inner, SECRET).await;
    assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:") && !stored.windows(3).any(|w| w == b"two"));
    assert_eq!(get(&*inner, "/registry/configmaps/default/a").await, "plain");
    let delete = vec![Op::Delete(KeyRange::key(SECRET))];
    sealed.txn(Txn { success: delete, ..Txn::default() }).await.expect("deletes");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        if let WatchMessage::Events(events) = watch.next().await.expect("events") {
            let value = |kv: &KeyValue| String::from_utf8(kv.value.to_vec()).expect("text");
            seen.extend(events.iter().map(|e| (value(&e.kv), e.previous.as_ref().map(value))));
        }
    }
    let wanted = [("one", None), ("plain", None), ("two", Some("one")), ("", Some("two"))];
    assert_eq!(seen, wanted.map(|(now, before)| (now.to_owned(), before.map(str::to_owned))));
}

#[tokio::test]
async fn old_values_follow_a_rotation() {
    let scratch = tempfile::tempdir().expect("scratch");
    let inner = Memory::open();
    // From before there was encryption.
    for number in 0..250 {
        put(&*inner, &format!("/registry/secrets/default/{number:03}"), &format!("v{number}")).await;
    }
    let sealed = Sealed::over(inner.clone(), scratch.path()).expect("opens");
    assert_eq!(get(&*sealed, "/registry/secrets/default/007").await, "v7");
    let counts = |status: super::rotation::Status| (status.keys.len(), status.secrets, status.current);
    assert_eq!(counts(sealed.status().await.expect("tells")), (1, 250, 0));
    assert_eq!(sealed.rewrite().await.expect("rewrites"), 250);
    assert_eq!(counts(sealed.status().await.expect("tells")), (1, 250, 250));
    let before = sealed.revision();
    assert_eq!((sealed.rewrite().await.expect("rewrites"), sealed.revision()), (0, before));
    sealed.rotate().expect("rotates");
    assert_eq!(counts(sealed.status().await.expect("tells")), (2, 250, 0));
    // History is read with the older key.
    assert_eq!(get(&*sealed, "/registry/secrets/default/200").await, "v200");
    let group = crate::task::Group::root();
    start(&group, sealed.clone());
    while sealed.status().await.expect("tells").current < 250 {
        tokio::task::yield_now().await;
    }
    group.join(std::time::Duration::from_secs(5)).await.expect("ends");
    // A server that starts again reads all of it.
    let again = Sealed::over(inner, scratch.path()).expect("opens");
    assert_eq!(get(&*again, "/registry/secrets/default/249").await, "v249");
    // Without its keys it says so.
    std::fs::remove_file(keys::file(scratch.path())).expect("removes");
    let without = Sealed::over(again.inner.clone(), scratch.path()).expect("opens");
    let read = without.range(RangeRequest::of(KeyRange::prefix("/registry/secrets/"))).await;
    assert!(read.expect_err("fails").to_string().contains("encryption-config.json"));
}
