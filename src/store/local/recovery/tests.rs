use super::super::Local;
use super::*;
use crate::store::{KeyRange, KeyValue, LeaseId, Op, Put, RangeRequest, Store, Txn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::sync::Arc;

/// With files of either engine, and keys below `/v/` in the memory tier.
fn open_as(path: &Path, kind: Kind) -> Arc<dyn Store> {
    let options = Options { engine: Some(kind), volatile: vec!["/v/".into()], ..Options::default() };
    Local::open(path, options).expect("opens")
}

async fn put(store: &dyn Store, key: &str, value: impl Into<Vec<u8>>) -> Revision {
    let value = Some(value.into().into());
    let put = Op::Put(Put { key: key.to_owned().into(), value, lease: Some(LeaseId::NONE) });
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes").revision
}

async fn all(store: &dyn Store) -> Vec<KeyValue> {
    store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads").kvs
}

#[tokio::test]
async fn space_is_given_back() {
    for kind in Kind::ALL {
        let scratch = tempfile::tempdir().expect("scratch");
        let store = open_as(scratch.path(), kind);
        let mut noise = StdRng::seed_from_u64(1);
        for n in 0..300 {
            put(&*store, &format!("/{n:03}"), (0..120_000).map(|_| noise.random()).collect::<Vec<u8>>()).await;
        }
        put(&*store, "/v/heartbeat", "1").await;
        store.lease_grant(LeaseId(7), 600).await.expect("grants");
        assert!(store.disk_bytes() > 36_000_000);
        let gone = Op::Delete(KeyRange { start: "/005".into(), end: "/3".into() });
        store.txn(Txn { success: vec![gone], ..Txn::default() }).await.expect("deletes");
        let revision = put(&*store, "/a", "old").await;
        store.compact(revision).await.expect("compacts");
        let newest = put(&*store, "/a", "new").await;
        let kept = all(&*store).await;
        store.defragment().await.expect("gives space back");
        let after = store.disk_bytes();
        assert!(after < 16 << 20, "{kind:?}: {after} bytes");
        assert_eq!(all(&*store).await, kept);
        let old = RangeRequest { revision: Some(revision), ..RangeRequest::of(KeyRange::key("/a")) };
        assert_eq!(store.range(old).await.expect("reads the past").kvs[0].value, "old");
        assert_eq!(put(&*store, "/b", "2").await.0, newest.0 + 1);
        store.close().await.expect("closes");
        drop(store);
        let store = open_as(scratch.path(), kind);
        assert_eq!(all(&*store).await.len(), kept.len() + 1);
        assert_eq!((store.revision().0, store.leases().await.expect("reads").len()), (newest.0 + 1, 1));
        assert!(store.condition().losses.is_empty());
        store.close().await.expect("closes");
    }
}

/// Everything that a client can see of a store.
async fn seen(store: &dyn Store) -> String {
    let mut past = Vec::new();
    for revision in store.compacted().0..=store.revision().0 {
        let at = RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::of(KeyRange::prefix("/")) };
        past.push(format!("{:?}", store.range(at).await.map(|read| read.kvs)));
    }
    let mut leases = Vec::new();
    for lease in store.leases().await.expect("lists") {
        leases.push(format!("{:?} {:?}", lease.granted, store.lease(lease.id, true).await.expect("is there").1));
    }
    format!("{} {} {past:?} {leases:?}", store.revision(), store.compacted())
}

async fn filled(path: &Path, kind: Kind) -> Arc<dyn Store> {
    let store = open_as(path, kind);
    store.lease_grant(LeaseId(7), 600).await.expect("grants");
    for n in 0..200_u32 {
        put(&*store, &format!("/{}", n % 30), vec![n as u8; 50 * n as usize]).await;
        put(&*store, "/v/heartbeat", n.to_string()).await;
        if n == 100 {
            store.compact(Revision(150)).await.expect("compacts");
        }
    }
    let attached = Op::Put(Put { key: "/leased".into(), value: Some("x".into()), lease: Some(LeaseId(7)) });
    let delete = Op::Delete(KeyRange::key("/3"));
    store.txn(Txn { success: vec![attached, delete], ..Txn::default() }).await.expect("writes");
    store
}

#[tokio::test]
async fn a_store_moves_to_another_engine_as_it_is() {
    for (old, new) in [(Kind::Sled, Kind::Log), (Kind::Log, Kind::Sled)] {
        let scratch = tempfile::tempdir().expect("scratch");
        let store = filled(scratch.path(), old).await;
        let before = seen(&*store).await;
        store.close().await.expect("closes");
        drop(store);
        // A crash in the middle of an earlier try.
        fs::create_dir_all(scratch.path().join("restoring/rest")).expect("creates");
        let (files, made) = (scratch.path().join(old.name()), scratch.path().join(new.name()));
        let aside = scratch.path().join(format!("before-{}", old.name()));
        fs::rename(&files, &aside).expect("renames");

        let store = open_as(scratch.path(), new);
        assert_eq!(seen(&*store).await, before, "{old:?} to {new:?}");
        assert!(!files.exists() && made.exists() && !aside.exists());
        let revision = put(&*store, "/new", "1").await;
        store.close().await.expect("closes");
        drop(store);
        // A crash before the old files were removed.
        fs::create_dir(&aside).expect("creates");
        let store = Local::open(scratch.path(), Options::default()).expect("opens what is there");
        assert_eq!(
            (store.revision(), all(&*store).await.last().map(|kv| kv.key.clone())),
            (revision, Some("/v/heartbeat".into()))
        );
        assert!(!aside.exists() && made.exists() && !files.exists());
        store.close().await.expect("closes");
        drop(store);
        fs::create_dir(&files).expect("creates");
        let refused = Local::open(scratch.path(), Options::default()).err().expect("is refused").to_string();
        assert!(refused.contains("files of two engines"), "{refused}");
    }
}

/// After an unclean stop, too: what was reserved stays given out.
#[tokio::test]
async fn a_store_that_was_not_closed_moves_as_well() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = filled(scratch.path(), Kind::Sled).await;
    let last = store.revision();
    let copy = scratch.path().join("copy");
    fs::create_dir_all(copy.join("sled/blobs")).expect("creates");
    for entry in fs::read_dir(scratch.path().join("sled")).expect("lists").flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), copy.join("sled").join(entry.file_name())).expect("copies");
    }
    let moved = open_as(&copy, Kind::Log);
    assert!(moved.revision() > last, "{} after {last}", moved.revision());
    let watch = moved.watch(KeyRange::prefix("/v/"), Some(last)).await.map(drop);
    assert!(matches!(watch, Err(Error::Compacted(at)) if at == moved.revision()), "{watch:?}");
    moved.close().await.expect("closes");
    store.close().await.expect("closes");
}
