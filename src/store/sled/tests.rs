use super::census;
use super::entries::{piece_key, split};
use super::read::{COMPACTED_KEY, FORMAT, FORMAT_1, FORMAT_2, FORMAT_KEY};
use super::*;
use crate::store::local::engine::Kind;
use crate::store::local::record::{Encoder, Write};
use crate::store::local::{Local, Options};
use crate::store::{KeyRange, LeaseId, Op, RangeRequest, Revision, Store, Txn};

const OPTIONS: Options = Options {
    engine: Some(Kind::Sled),
    page_cache_bytes: 4 << 20,
    value_cache_bytes: 0,
    volatile: Vec::new(),
    quota_bytes: 0,
};

fn raw(path: &Path) -> ::sled::Db {
    open_sled(&Files::new(&path.join("sled")), &OPTIONS).expect("opens").sled
}

/// As older versions wrote: one entry after the other, metadata without a census.
fn write_old(path: &Path, format: &[u8]) {
    let sled = raw(path);
    let put = |place: Place, value: &[u8], last: bool| {
        let write = Write { key: b"/a", value: Some(value), create: 2, version: place.revision, lease: LeaseId::NONE };
        let encoded = Encoder::new().encode(&write);
        let (mut record, pieces) = split(&encoded);
        if !last {
            record[0] &= !2;
        }
        for (number, piece) in pieces.enumerate() {
            sled.insert(piece_key(place, number as u16), piece).expect("inserts");
        }
        sled.insert(key(place), record).expect("inserts");
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
            let store = Local::open(scratch.path(), OPTIONS).expect("opens");
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
async fn a_record_that_is_missing_or_back_is_noticed() {
    type Harm = fn(&::sled::Db);
    let harms: [Harm; 4] = [
        |sled| drop(sled.remove(key(Place { revision: 3, sub: 0 })).expect("removes").expect("was there")),
        |sled| drop(sled.insert(key(Place { revision: 1, sub: 0 }), &[0][..]).expect("inserts")),
        |sled| drop(sled.insert(b"l12345678", &[0, 0, 0, 9]).expect("inserts")),
        |sled| drop(sled.remove(census::CENSUS_KEY).expect("removes").expect("was there")),
    ];
    for harm in harms {
        let scratch = tempfile::tempdir().expect("scratch");
        let store = Local::open(scratch.path(), OPTIONS).expect("opens");
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
        let opened = Local::open(scratch.path(), OPTIONS).map(drop);
        assert!(matches!(opened, Err(Error::Damaged(_))), "{opened:?}");
    }
}
