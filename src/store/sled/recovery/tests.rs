use super::super::Sled;
use super::*;
use crate::store::{KeyRange, LeaseId, Op, Put, RangeRequest, Store, Txn};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

fn raw(path: &Path) -> ::sled::Db {
    let directory = Directory::open(path).expect("is free");
    open_sled(&directory.sled(), &Options::default()).expect("opens").sled
}

/// As older versions wrote: one entry after the other, metadata without a census.
fn write_old(path: &Path, format: &[u8]) {
    let sled = raw(path);
    let put = |place: Place, value: &[u8], last: bool| {
        let write = Write { key: b"/a", value: Some(value), create: 2, version: place.revision, lease: LeaseId::NONE };
        let mut encoded = Encoder::new().encode(&write);
        if last {
            encoded.mark_last();
        }
        for (number, piece) in encoded.pieces.iter().enumerate() {
            sled.insert(place.piece_key(number as u16), &piece[..]).expect("inserts");
        }
        sled.insert(place.key(), &encoded.record[..]).expect("inserts");
    };
    put(Place { revision: 2, sub: 0 }, b"old", true);
    put(Place { revision: 3, sub: 0 }, b"new", true);
    // Never acknowledged: the end of its transaction is missing.
    put(Place { revision: 4, sub: 0 }, b"torn", false);
    sled.insert(COMPACTED_KEY, &2_u64.to_be_bytes()).expect("inserts");
    sled.insert(FORMAT_KEY, format).expect("inserts");
    sled.flush().expect("flushes");
}

async fn read(store: &Arc<dyn Store>) -> Bytes {
    let read = store.range(RangeRequest::of(KeyRange::key("/a"))).await.expect("reads");
    read.kvs.first().map(|kv| kv.value.clone()).unwrap_or_default()
}

#[tokio::test]
async fn older_formats_are_counted_when_they_are_opened() {
    for format in [FORMAT_1, FORMAT_2] {
        let scratch = tempfile::tempdir().expect("scratch");
        write_old(scratch.path(), format);
        for round in 0..2_u64 {
            let store = Sled::open(scratch.path(), Options::default()).expect("opens");
            assert_eq!((store.revision(), store.compacted()), (Revision(3 + round), Revision(2)));
            assert_eq!(read(&store).await, if round == 0 { "new" } else { "newer" });
            let put = Op::put("/a", "newer");
            store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes");
            store.close().await.expect("closes");
        }
        assert_eq!(raw(scratch.path()).get(FORMAT_KEY).expect("reads").as_deref(), Some(FORMAT));
    }
}

#[tokio::test]
async fn space_is_given_back_and_a_crash_meanwhile_is_got_over() {
    let scratch = tempfile::tempdir().expect("scratch");
    let open = || Sled::open(scratch.path(), Options { volatile: vec!["/v/".into()], ..Options::default() });
    let store = open().expect("opens");
    let mut noise = StdRng::seed_from_u64(1);
    let put = async |store: &Arc<dyn Store>, key: String, value: Vec<u8>| {
        let put = Put { key: key.into(), value: Some(value.into()), lease: Some(LeaseId::NONE) };
        store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.expect("writes").revision
    };
    for n in 0..300 {
        let value = (0..120_000).map(|_| noise.random()).collect();
        put(&store, format!("/{n:03}"), value).await;
    }
    put(&store, "/v/heartbeat".into(), b"1".to_vec()).await;
    store.lease_grant(LeaseId(7), 600).await.expect("grants");
    let gone = Op::Delete(KeyRange { start: "/005".into(), end: "/3".into() });
    store.txn(Txn { success: vec![gone], ..Txn::default() }).await.expect("deletes");
    let revision = put(&store, "/a".into(), b"old".to_vec()).await;
    store.compact(revision).await.expect("compacts");
    let newest = put(&store, "/a".into(), b"new".to_vec()).await;
    let everything = || RangeRequest::of(KeyRange::prefix("/"));
    let (before, kept) = (store.disk_bytes(), store.range(everything()).await.expect("reads"));
    store.defragment().await.expect("gives space back");
    let after = store.disk_bytes();
    assert!(after < before / 2, "{before} bytes, then {after}");
    assert_eq!(store.range(everything()).await.expect("reads").kvs, kept.kvs);
    let old = RangeRequest { revision: Some(revision), ..RangeRequest::of(KeyRange::key("/a")) };
    assert_eq!(store.range(old).await.expect("reads the past").kvs[0].value, "old");
    assert_eq!(put(&store, "/b".into(), b"2".to_vec()).await.0, newest.0 + 1);
    store.close().await.expect("closes");
    drop(store);

    // The old files are away, the new ones not there yet; and: both are there.
    let (sled, aside) = (scratch.path().join("sled"), scratch.path().join("before"));
    std::fs::rename(&sled, &aside).expect("renames");
    for _ in 0..2 {
        let store = open().expect("opens");
        assert_eq!(store.range(everything()).await.expect("reads").kvs.len(), kept.kvs.len() + 1);
        assert_eq!((store.revision().0, store.leases().await.expect("reads").len()), (newest.0 + 1, 1));
        assert!(store.condition().losses.is_empty() && !aside.exists());
        store.close().await.expect("closes");
        std::fs::create_dir(&aside).expect("creates");
    }
}

#[tokio::test]
async fn a_record_that_is_missing_or_back_is_noticed() {
    type Harm = fn(&::sled::Db);
    let harms: [Harm; 4] = [
        |sled| drop(sled.remove(Place { revision: 3, sub: 0 }.key()).expect("removes").expect("was there")),
        |sled| drop(sled.insert(Place { revision: 1, sub: 0 }.key(), &[0][..]).expect("inserts")),
        |sled| drop(sled.insert(b"l12345678", &[0, 0, 0, 9]).expect("inserts")),
        |sled| drop(sled.remove(census::CENSUS_KEY).expect("removes").expect("was there")),
    ];
    for harm in harms {
        let scratch = tempfile::tempdir().expect("scratch");
        let store = Sled::open(scratch.path(), Options::default()).expect("opens");
        for value in ["1", "2", "3"] {
            let put = Op::put("/a", value);
            store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes");
        }
        store.close().await.expect("closes");
        drop(store);
        let sled = raw(scratch.path());
        harm(&sled);
        sled.flush().expect("flushes");
        drop(sled);
        let opened = Sled::open(scratch.path(), Options::default()).map(drop);
        assert!(matches!(opened, Err(Error::Damaged(_))), "{opened:?}");
    }
}
