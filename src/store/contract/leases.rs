//! Leases: what is attached to them, how they end, what a restart leaves of them.

use super::*;
use crate::store::{LeaseId, Put};
use std::time::Duration;

const A: LeaseId = LeaseId(0x1234);
const B: LeaseId = LeaseId(i64::MAX);

fn attach(key: &str, lease: LeaseId) -> Op {
    Op::Put(Put { key: text(key), value: Some(text("x")), lease: Some(lease) })
}

async fn keys(store: &dyn Store, lease: LeaseId) -> String {
    let (status, keys) = store.lease(lease, true).await.expect("is there");
    assert_eq!(status.id, lease);
    keys.iter().map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn revoking_deletes_what_is_attached_in_one_transaction() {
    for backend in Backend::all() {
        let store = backend.open().await;
        store.lease_grant(A, 600).await.expect("grants");
        store.lease_grant(B, 300).await.expect("grants");
        assert!(matches!(store.lease_grant(A, 5).await, Err(Error::LeaseExists)));
        assert_eq!(store.revision(), Revision(1), "granting takes no revision");
        run(&*store, vec![attach("/1", A), attach("/2", A), attach("/3", B)]).await;
        run(&*store, vec![attach("/2", B)]).await;
        run(&*store, vec![attach("/4", A), put_op("/5", "x")]).await;
        put(&*store, "/4", "no lease any more").await;
        run(&*store, vec![attach("/6", A)]).await;
        delete(&*store, KeyRange::key(text("/6"))).await;
        assert_eq!((keys(&*store, A).await, keys(&*store, B).await), ("/1".into(), "/2 /3".into()));
        assert_eq!(get(&*store, "/2").await.map(|kv| kv.lease), Some(B));
        assert_eq!(store.leases().await.expect("lists").iter().map(|lease| lease.id).collect::<Vec<_>>(), [B, A]);
        let mut watch = store.watch(KeyRange::prefix(text("/")), None).await.expect("watches");
        assert_eq!(store.lease_revoke(B).await.expect("revokes"), Revision(8));
        let gone: Vec<String> =
            drain(&mut *watch).await.expect("events").iter().map(|event| show_event(event)).collect();
        assert_eq!(gone, ["Delete /2=@8 was /2=x@3", "Delete /3=@8 was /3=x@2"]);
        assert!(matches!(store.lease(B, true).await, Err(Error::LeaseNotFound)));
        assert!(matches!(store.lease_revoke(B).await, Err(Error::LeaseNotFound)));
        assert!(matches!(store.lease_renew(B).await, Err(Error::LeaseNotFound)));
        assert_eq!(store.lease_renew(A).await.expect("renews"), 600);
    }
}

#[tokio::test]
async fn leases_that_are_not_renewed_end() {
    for backend in Backend::all() {
        let store = backend.open().await;
        let group = crate::task::Group::root();
        crate::store::lease::start(&group, store.clone());
        store.lease_grant(B, 3600).await.expect("grants");
        store.lease_grant(A, 1).await.expect("grants");
        run(&*store, vec![attach("/1", A), attach("/2", B)]).await;
        let mut watch = store.watch(KeyRange::prefix(text("/")), None).await.expect("watches");
        let Ok(WatchMessage::Events(events)) = watch.next().await else { panic!("events") };
        assert_eq!(events.iter().map(|event| show_event(event)).collect::<Vec<_>>(), ["Delete /1=@3 was /1=x@2"]);
        assert!(store.lease(B, false).await.is_ok());
        group.cancel();
        group.join(Duration::from_secs(1)).await.expect("ends");
    }
}

#[tokio::test]
async fn leases_survive_a_restart_with_the_time_that_is_left() {
    for (kind, closed) in [(Kind::Log, true), (Kind::Log, false), (Kind::Sled, true), (Kind::Sled, false)] {
        let backend = Backend::on(kind);
        let store = backend.open().await;
        store.lease_grant(A, 600).await.expect("grants");
        store.lease_grant(B, 300).await.expect("grants");
        store.lease_grant(LeaseId(1), 300).await.expect("grants");
        run(&*store, vec![attach("/1", A), attach("/2", B)]).await;
        store.lease_revoke(LeaseId(1)).await.expect("revokes");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        if closed {
            store.close().await.expect("closes");
        }
        drop(store);
        let store = backend.reopen().await;
        let leases = store.leases().await.expect("lists");
        assert_eq!(leases.iter().map(|lease| (lease.id, lease.granted)).collect::<Vec<_>>(), [(B, 300), (A, 600)]);
        assert!(leases.iter().all(|lease| lease.remaining < lease.granted), "noted down: {leases:?}");
        assert_eq!((keys(&*store, A).await, keys(&*store, B).await), ("/1".into(), "/2".into()));
        assert_eq!(get(&*store, "/2").await.map(|kv| kv.lease), Some(B));
        assert_eq!(store.lease_renew(A).await.expect("renews"), 600);
    }
}
