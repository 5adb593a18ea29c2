//! The store on a disk whose barriers take as long as they like (an SD card that is busy with itself, a disk that wakes
//! up). This executable answers `fdatasync` itself: it can hold barriers, and passes them on when it lets go.

mod store_common;

use kedge::store::condition::Condition;
use kedge::store::{KeyRange, LeaseId, Op, RangeRequest, Revision, Store, Txn, Watch, WatchMessage};
use parking_lot::{Condvar, Mutex};
use std::ffi::c_int;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_common::open;
use tokio::task::JoinSet;

/// How long one barrier takes.
const HELD: Duration = Duration::from_secs(10);

/// Writes that come while it lasts.
const WAITING: u64 = 300;

struct Disk {
    held: bool,
    /// Barriers that wait.
    waiting: usize,
}

static DISK: Mutex<Disk> = Mutex::new(Disk { held: false, waiting: 0 });
static CHANGED: Condvar = Condvar::new();

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    let mut disk = DISK.lock();
    disk.waiting += 1;
    while disk.held {
        CHANGED.wait(&mut disk);
    }
    disk.waiting -= 1;
    drop(disk);
    // SAFETY: takes no pointers; a wrong descriptor is an error.
    unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int }
}

fn hold(held: bool) {
    DISK.lock().held = held;
    CHANGED.notify_all();
}

fn put(key: &str, value: u64) -> Txn {
    Txn { success: vec![Op::put(key.to_owned(), value.to_be_bytes().to_vec())], ..Txn::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_writes_slow_and_nothing_else() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let store = open(scratch.path());
    for value in 0..100 {
        store.txn(put("/a", value)).await.expect("writes");
    }
    let before = store.revision();
    let mut watch = store.watch(KeyRange::prefix("/"), Some(Revision(before.0 + 1))).await.expect("watches");

    hold(true);
    let began = Instant::now();
    let mut writes = JoinSet::new();
    for number in 0..WAITING {
        let store = store.clone();
        writes.spawn(async move { store.txn(put(&format!("/w/{number}"), number)).await.map(|done| done.revision) });
    }
    let granting = store.clone();
    let grant = async move { granting.lease_grant(LeaseId(7), 60).await.map(|()| granting.revision()) };
    writes.spawn(grant);
    while DISK.lock().waiting == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while began.elapsed() < HELD {
        reads_go_on(&store, before).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(writes.try_join_next().is_none(), "nothing is acknowledged that is not on the disk");
    let silent = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
    assert!(silent.is_err(), "nothing is shown that is not on the disk: {silent:?}");

    hold(false);
    let written = writes.join_all().await;
    let mut revisions: Vec<u64> = written.into_iter().map(|done| done.expect("writes in the end").0).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert!(revisions.len() as u64 >= WAITING, "{revisions:?}");
    assert_eq!(seen(&mut watch, WAITING).await, ((before.0 + 1)..=(before.0 + WAITING)).collect::<Vec<_>>());
    told(&store.condition());
    store.close().await.expect("closes");
    let again = open(scratch.path());
    assert_eq!(again.range(RangeRequest::of(KeyRange::prefix("/w/"))).await.expect("reads").kvs.len(), 300);
    assert!(again.lease(LeaseId(7), false).await.is_ok());
    again.close().await.expect("closes");
}

/// Reads, and watches of the past, see what was acknowledged.
async fn reads_go_on(store: &Arc<dyn Store>, revision: Revision) {
    let read = store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads");
    assert_eq!((read.revision, read.kvs.len()), (revision, 1));
    assert_eq!(&read.kvs[0].value[..], 99u64.to_be_bytes());
    let mut past = store.watch(KeyRange::prefix("/"), Some(Revision(2))).await.expect("watches");
    assert_eq!(seen(&mut past, 100).await.len(), 100);
}

/// Revisions of the next events.
async fn seen(watch: &mut Box<dyn Watch>, count: u64) -> Vec<u64> {
    let mut revisions = Vec::new();
    while (revisions.len() as u64) < count {
        if let WatchMessage::Events(events) = watch.next().await.expect("events") {
            revisions.extend(events.iter().map(|event| event.kv.mod_revision.0));
        }
    }
    revisions
}

/// It says how slow the disk was, and of no failure.
fn told(condition: &Condition) {
    assert!(condition.commits.recent_worst >= HELD, "{condition:?}");
    assert!(condition.commits.quantile(1.0).is_none_or(|bound| bound >= HELD.as_secs_f64()), "{condition:?}");
    assert_eq!((&condition.alarm, condition.losses.len()), (&None, 0));
}
