//! The memory tier: acknowledged without the disk, whole after a clean stop, and after an unclean one honest about what
//! may be lost.
//!
//! A test that finds its variable set is the child that is killed.

mod store_common;

use kedge::store::{Error, KeyRange, Op, RangeRequest, Revision, Store, Txn, WatchMessage};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use store_common::open_volatile;

const CHILD: &str = "KEDGE_STORE_CHILD";
const WRITES: u64 = 40;

async fn put(store: &dyn Store, key: &str, value: u64) -> Revision {
    let put = Op::put(key.to_owned(), value.to_string());
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes").revision
}

async fn get(store: &dyn Store, key: &str) -> Option<u64> {
    let read = store.range(RangeRequest::of(KeyRange::key(key.to_owned()))).await.expect("reads");
    read.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).parse().expect("number"))
}

/// Revisions of the events that a watch gets until the store's revision.
async fn events(store: &dyn Store, prefix: &str, from: u64) -> Result<Vec<u64>, Error> {
    let mut watch = store.watch(KeyRange::prefix(prefix.to_owned()), Some(Revision(from))).await?;
    watch.request_progress();
    let mut revisions = Vec::new();
    loop {
        match watch.next().await? {
            WatchMessage::Events(events) => revisions.extend(events.iter().map(|event| event.kv.mod_revision.0)),
            WatchMessage::Progress(_) => return Ok(revisions),
        }
    }
}

#[tokio::test]
async fn heartbeats_cost_no_barrier_and_a_clean_stop_loses_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = open_volatile(scratch.path());
    put(&*store, "/d/a", 1).await;
    put(&*store, "/v/a", 1).await;
    let commits = store.condition().commits.count;
    for number in 2..=WRITES {
        put(&*store, "/v/a", number).await;
    }
    assert_eq!(store.condition().commits.count, commits, "a heartbeat waited for the disk");
    let delete = Op::Delete(KeyRange::prefix("/v/"));
    let revision = store.txn(Txn { success: vec![delete], ..Txn::default() }).await.expect("deletes").revision;
    assert_eq!(put(&*store, "/v/b", 7).await.0, revision.0 + 1);
    assert_eq!(store.condition().commits.count, commits);
    // Both tiers in one transaction: durable.
    let both = ["/v/c", "/d/c"].map(|key| Op::put(key, "9"));
    store.txn(Txn { success: both.into(), ..Txn::default() }).await.expect("writes");
    assert_eq!(store.condition().commits.count, commits + 1);
    let last = store.revision();
    let before = events(&*store, "/", 2).await.expect("watches");
    store.close().await.expect("closes");
    drop(store);

    let store = open_volatile(scratch.path());
    assert_eq!(store.revision(), last);
    assert_eq!(events(&*store, "/", 2).await.expect("history is whole"), before);
    assert_eq!(
        [get(&*store, "/v/a").await, get(&*store, "/v/b").await, get(&*store, "/v/c").await],
        [None, Some(7), Some(9)]
    );
    // What is forgotten before it was written to disk never gets there.
    for number in 0..WRITES {
        put(&*store, "/v/a", number).await;
    }
    store.compact(store.revision()).await.expect("compacts");
    while store.history_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&*store, "/v/a").await, Some(WRITES - 1));
    store.close().await.expect("closes");
}

#[tokio::test]
async fn after_an_unclean_stop_watches_of_the_memory_tier_start_over() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let store = open_volatile(std::path::Path::new(&directory));
        for number in 1..=WRITES {
            put(&*store, "/v/a", number).await;
            put(&*store, "/d/a", number).await;
        }
        println!("revision {}", put(&*store, "/v/a", 0).await);
        return std::future::pending().await;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let mut highest = 0;
    for round in 1..=3u64 {
        let own = std::env::current_exe().expect("own path");
        let mut child = Command::new(own)
            .args(["after_an_unclean_stop_watches_of_the_memory_tier_start_over", "--exact", "--nocapture"])
            .env(CHILD, scratch.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let revision = lines.filter_map(|line| line.split("revision ").nth(1)?.trim().parse::<u64>().ok()).next();
        child.kill().expect("is killed");
        child.wait().expect("ends");
        let revision = revision.expect("a revision");
        assert!(revision > highest, "round {round}: revision {revision} after {highest}");

        let store = open_volatile(scratch.path());
        let now = store.revision().0;
        assert!(now > revision, "{now} after {revision} was given out");
        assert_eq!(get(&*store, "/d/a").await, Some(WRITES));
        for (prefix, from) in [("/v/", revision), ("/v/", now - 1), ("/", 2)] {
            let watch = events(&*store, prefix, from).await;
            assert!(matches!(watch, Err(Error::Compacted(at)) if at.0 == now), "{prefix} from {from}: {watch:?}");
            let read = RangeRequest { revision: Some(Revision(from)), ..RangeRequest::of(KeyRange::prefix(prefix)) };
            assert!(matches!(store.range(read).await, Err(Error::Compacted(_))), "{prefix} at {from}");
        }
        // The durable tier's history is whole.
        let durable = events(&*store, "/d/", 2).await.expect("watches");
        assert_eq!(durable.len() as u64, WRITES * round);
        assert!(events(&*store, "/v/", now).await.expect("from now on").is_empty());
        let next = put(&*store, "/v/b", round).await;
        assert_eq!(next.0, now + 1);
        assert_eq!(events(&*store, "/", now + 1).await.expect("from now on"), [next.0]);
        store.close().await.expect("closes");
        drop(store);
        // A clean stop in between does not bring lost history back.
        let store = open_volatile(scratch.path());
        assert!(matches!(events(&*store, "/v/", revision).await, Err(Error::Compacted(_))));
        assert_eq!((store.revision(), get(&*store, "/v/b").await), (next, Some(round)));
        highest = next.0;
        store.close().await.expect("closes");
    }
}
