//! Figures of the store: `cargo bench --bench store [-- DIRECTORY]`. The directory (default: the temporary one) decides
//! which disk is measured.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kedge::store::sled::{Options, Sled};
use kedge::store::{KeyRange, Op, RangeRequest, Store, Txn, WatchMessage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    if let Some(path) = std::env::var_os(REOPEN) {
        return runtime.block_on(reopened(Path::new(&path)));
    }
    let base = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map_or(std::env::temp_dir(), PathBuf::from);
    let path = base.join(format!("kedge-bench-store-{}", std::process::id()));
    runtime.block_on(measure(&path));
    let _ = std::fs::remove_dir_all(&path);
}

async fn measure(path: &Path) {
    show("RSS before", rss());
    let store = open(&path.join("small"));
    sequential_puts(&*store, 1024, 2000).await;
    concurrent_puts(&*store, 1024, 50, 400).await;
    show("RSS after 22,000 puts of 1 KiB on 1,050 keys", rss());
    let before = Instant::now();
    store.compact(store.revision()).await.expect("compacts");
    while store.history_bytes() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    show("compaction of 20,000 revisions", format!("{:?}", before.elapsed()));
    show("disk", mib(store.disk_bytes()));
    watch_fan_out(&*store).await;
    store.close().await.expect("closes");
    drop(store);

    let large = path.join("large");
    let store = open(&large);
    fill(&*store, "/registry/pods/default/", 10_000, 2048).await;
    lists(&*store, "after writing").await;
    store.trim();
    store.trim();
    lists(&*store, "values not in memory").await;
    store.close().await.expect("closes");
    drop(store);
    again(&large, "10,000 x 2 KiB");
    let store = open(&large);
    fill(&*store, "/registry/configmaps/default/", 90_000, 2048).await;
    show("disk with 100,000 x 2 KiB", mib(store.disk_bytes()));
    store.close().await.expect("closes");
    drop(store);
    again(&large, "100,000 x 2 KiB");
}

/// Set for a process that is to measure an existing store.
const REOPEN: &str = "KEDGE_BENCH_REOPEN";

/// Measure opening and reading in a process of its own.
fn again(path: &Path, what: &str) {
    println!("-- a new process opens {what}");
    let own = std::env::current_exe().expect("own path");
    let status = std::process::Command::new(own).env(REOPEN, path).status().expect("runs");
    assert!(status.success(), "{status}");
}

async fn reopened(path: &Path) {
    let before = Instant::now();
    let store = open(path);
    show("opening", format!("{:?}", before.elapsed()));
    show("RSS after opening", rss());
    lists(&*store, "first and again").await;
    show("RSS after lists", rss());
    store.trim();
    store.trim();
    show("RSS after trim", rss());
    let before = Instant::now();
    let all = store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads");
    show(&format!("list of {}", all.kvs.len()), format!("{:?}", before.elapsed()));
    drop(all);
    store.trim();
    store.trim();
    show("RSS after listing all and trim", rss());
    store.close().await.expect("closes");
}

fn open(path: &Path) -> Arc<dyn Store> {
    Sled::open(path, Options::default()).expect("opens")
}

fn put(key: String, value: Bytes) -> Txn {
    Txn { success: vec![Op::put(key, value)], ..Txn::default() }
}

/// Something like a Kubernetes object: JSON with names that repeat and some noise.
fn object(number: usize, bytes: usize) -> Bytes {
    let mut noise = number as u64;
    let mut text = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-{number}","labels":{{"#);
    while text.len() + 40 < bytes {
        noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        text += &format!(r#""app.kubernetes.io/part-{:02}":"value-{:08x}","#, text.len() % 100, noise >> 32);
    }
    text += r#""end":"true"}}}"#;
    text.into()
}

async fn sequential_puts(store: &dyn Store, bytes: usize, count: usize) {
    let (before, written) = (Instant::now(), written());
    for number in 0..count {
        let key = format!("/registry/leases/kube-node-lease/node-{}", number % 50);
        store.txn(put(key, object(number, bytes))).await.expect("writes");
    }
    rate("sequential durable puts of 1 KiB", count, before.elapsed());
    let per_byte = (self::written() - written) as f64 / (count * bytes) as f64;
    show("  bytes written to disk per byte put", format!("{per_byte:.1}"));
}

async fn concurrent_puts(store: &dyn Store, bytes: usize, clients: usize, each: usize) {
    let (before, written) = (Instant::now(), written());
    let client = |client: usize| async move {
        for number in 0..each {
            let key = format!("/registry/configmaps/default/c-{client}-{}", number % 20);
            store.txn(put(key, object(number, bytes))).await.expect("writes");
        }
    };
    (0..clients).map(client).collect::<FuturesUnordered<_>>().collect::<Vec<_>>().await;
    rate(&format!("durable puts of 1 KiB, {clients} at once"), clients * each, before.elapsed());
    let per_byte = (self::written() - written) as f64 / (clients * each * bytes) as f64;
    show("  bytes written to disk per byte put", format!("{per_byte:.1}"));
}

async fn watch_fan_out(store: &dyn Store) {
    const WATCHES: usize = 50;
    const EVENTS: usize = 5_000;
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        watches.push(store.watch(KeyRange::prefix("/registry/events/"), None).await.expect("watches"));
    }
    let before = Instant::now();
    let writes = async {
        let write = |number: usize| store.txn(put(format!("/registry/events/{number}"), object(number, 1024)));
        futures::stream::iter(0..EVENTS).map(write).buffer_unordered(200).for_each(|_| async {}).await;
    };
    let reads = watches.into_iter().map(|mut watch| async move {
        let mut count = 0;
        while count < EVENTS {
            if let WatchMessage::Events(events) = watch.next().await.expect("events") {
                count += events.len();
            }
        }
    });
    futures::join!(writes, futures::future::join_all(reads));
    rate(&format!("events to {WATCHES} watches while they are written"), WATCHES * EVENTS, before.elapsed());
}

async fn fill(store: &dyn Store, prefix: &str, count: usize, bytes: usize) {
    let before = Instant::now();
    let write = |number: usize| store.txn(put(format!("{prefix}object-{number:06}"), object(number, bytes)));
    futures::stream::iter(0..count).map(write).buffer_unordered(200).for_each(|_| async {}).await;
    rate(&format!("durable puts of {bytes} bytes, 200 at once"), count, before.elapsed());
}

async fn lists(store: &dyn Store, when: &str) {
    for _ in 0..3 {
        let before = Instant::now();
        let read = store.range(RangeRequest::of(KeyRange::prefix("/registry/pods/"))).await.expect("reads");
        let bytes: usize = read.kvs.iter().map(|kv| kv.value.len()).sum();
        show(&format!("list of {} ({}), {when}", read.kvs.len(), mib(bytes as u64)), format!("{:?}", before.elapsed()));
    }
}

fn rate(what: &str, count: usize, took: Duration) {
    let rate = count as f64 / took.as_secs_f64();
    show(what, format!("{rate:.0}/s ({:?} each)", took / count as u32));
}

fn rss() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    format!("{} (highest {})", field("VmRSS:"), field("VmHWM:"))
}

/// Bytes that this process has caused to be written to disk.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    field.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn show(what: &str, value: impl std::fmt::Display) {
    println!("{what:<70} {value}");
}
