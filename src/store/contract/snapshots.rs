//! Snapshots, and the quota.

use super::*;
use crate::store::{Alarm, LeaseId, Snapshot};

/// All writes of a snapshot: `revision.sub kind key=value`.
pub async fn writes(snapshot: &mut dyn Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let step = snapshot.next().await.expect("reads");
        if step.is_empty() {
            return all;
        }
        all.extend(step.iter().map(|write| {
            let kv = &write.kv;
            let (key, value) = (kv.key.escape_ascii(), kv.value.escape_ascii());
            format!("{}.{} {:?} {key}={value}", kv.mod_revision, write.sub, write.kind)
        }));
    }
}

#[tokio::test]
async fn a_snapshot_holds_what_can_be_read_when_it_is_taken() {
    for backend in Backend::local() {
        let store = backend.open().await;
        put(&*store, "/a", "1").await;
        run(&*store, vec![put_op("/b", "1"), put_op("/a", "2")]).await;
        delete(&*store, KeyRange::key(text("/b"))).await;
        put(&*store, "/a", "3").await;
        delete(&*store, KeyRange::prefix(text("/"))).await;
        store.lease_grant(LeaseId(5), 100).await.expect("grants");
        let all = ["2.0 Put /a=1", "3.0 Put /b=1", "3.1 Put /a=2", "4.0 Delete /b=", "5.0 Put /a=3", "6.0 Delete /a="];
        // (compacted at, what is not in the snapshot any more)
        for (compacted, gone) in [(1, 0), (3, 1), (4, 4), (5, 4)] {
            if compacted > 1 {
                store.compact(Revision(compacted)).await.expect("compacts");
            }
            let mut snapshot = store.snapshot().await.expect("is taken");
            assert_eq!((snapshot.head().revision, snapshot.head().compacted), (Revision(6), Revision(compacted)));
            assert_eq!(snapshot.head().leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [LeaseId(5)]);
            let mut wanted = all[gone..].to_vec();
            if compacted == 4 {
                wanted.insert(0, all[2]);
            }
            assert_eq!(writes(&mut *snapshot).await, wanted, "compacted at {compacted}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_stays_whole_while_the_store_goes_on() {
    for backend in Backend::local() {
        let store = backend.open().await;
        let value = "v".repeat(3000);
        for step in 0..1500 {
            put(&*store, &format!("/{}", step % 700), format!("{step}{value}")).await;
        }
        let mut snapshot = store.snapshot().await.expect("is taken");
        for step in 0..700 {
            put(&*store, &format!("/{step}"), "new").await;
        }
        store.compact(store.revision()).await.expect("compacts");
        store.defragment().await.expect("works");
        let writes = writes(&mut *snapshot).await;
        assert_eq!(writes.len(), 1500);
        snapshot.rewind();
        assert!(super::snapshots::writes(&mut *snapshot).await == writes, "the same again");
        for (step, write) in writes.iter().enumerate() {
            assert_eq!(write, &format!("{}.0 Put /{}={step}{value}", step + 2, step % 700));
        }
        drop(snapshot);
        store.defragment().await.expect("works");
        let mut after = store.snapshot().await.expect("is taken");
        assert_eq!(super::snapshots::writes(&mut *after).await.len(), 700);
    }
}

#[tokio::test]
async fn at_its_quota_the_store_reads_and_deletes_only() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let options = Options { quota_bytes: 32 << 20, ..Options::default() };
    let store = Local::open(scratch.path().join("store"), options).expect("opens");
    // Hard to compress.
    let mut state = 1u64;
    let mut noise = || {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        Bytes::from((0..500_000).map(|_| next()).collect::<Vec<u8>>())
    };
    let mut count = 0;
    let refused = loop {
        let txn = Txn { success: vec![Op::put(format!("/{count}"), noise())], ..Txn::default() };
        match store.txn(txn).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(matches!(&refused, Error::NoSpace(why) if why.contains("quota")), "{refused}");
    assert_eq!(store.alarm(), Some(Alarm::NoSpace));
    assert!(matches!(store.lease_grant(LeaseId(1), 10).await, Err(Error::NoSpace(_))));
    assert!(get(&*store, "/0").await.is_some());
    delete(&*store, KeyRange::key(text("/0"))).await;
    store.compact(store.revision()).await.expect("compacts");
    store.disarm();
    assert_eq!(store.alarm(), None);
}
