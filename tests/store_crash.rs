//! The store under `kill -9` and on a full disk: what was acknowledged is there, also in the next process.
//!
//! The tests start this executable again as a child: a test that finds its variable set is that child.

mod store_common;

use kedge::store::local::engine::Kind;
use kedge::store::local::{Local, Options};
use kedge::store::{Error, KeyRange, Op, RangeRequest, Revision, Store, Txn};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use store_common::{Acknowledged, ENGINE, check, engine, open, value, write};

const CHILD: &str = "KEDGE_STORE_CHILD";
const WRITERS: u64 = 8;

fn child(test: &str, engine: Kind, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, directory).env(ENGINE, engine.name());
    command
}

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_lose_nothing_acknowledged() {
    killed("killed_processes_lose_nothing_acknowledged", Kind::Log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_with_sled() {
    killed("nor_do_they_with_sled", Kind::Sled).await;
}

async fn killed(test: &str, engine: Kind) {
    if let Some(directory) = child_directory() {
        let round = directory.join("round");
        let round: u64 = std::fs::read_to_string(round).expect("round").parse().expect("number");
        let store = open(&directory);
        let steps = 1_000_000 * round + 1..1_000_000 * (round + 1);
        let line = |key: &str, step, revision| println!("{key} {step} {revision}");
        let writers = (0..WRITERS).map(|writer| write(&*store, writer, steps.clone(), line));
        return drop(futures::future::join_all(writers).await);
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let mut acknowledged = Acknowledged::new();
    for round in 1..=8u64 {
        std::fs::write(scratch.path().join("round"), round.to_string()).expect("writes");
        let mut process = child(test, engine, scratch.path()).stdout(Stdio::piped()).spawn().expect("starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let wanted = 150 * round as usize;
        let mut seen = 0;
        for line in lines {
            let line = line.expect("text");
            if seen == wanted {
                process.kill().expect("is killed");
            }
            let mut words = line.split(' ');
            let (Some(key), Some(step), Some(revision)) = (words.next(), words.next(), words.next()) else { continue };
            // A line may be cut by the kill.
            let (Ok(step), Ok(revision)) = (step.parse(), revision.parse::<u64>()) else { continue };
            if key.starts_with('/') && (seen < wanted || line.len() > key.len() + 10) {
                acknowledged.insert(key.into(), (step, revision));
                seen += 1;
            }
        }
        process.wait().expect("ends");
        assert!(seen >= wanted, "the child stopped by itself after {seen} writes");
        check(scratch.path(), &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_only() {
    on_a_small_disk("a_full_disk_stops_writes_only", Kind::Log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_sled_s_writes_only() {
    on_a_small_disk("a_full_disk_stops_sled_s_writes_only", Kind::Sled).await;
}

async fn on_a_small_disk(test: &str, engine: Kind) {
    if let Some(directory) = child_directory() {
        return fill_the_disk(&directory).await;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let mount = scratch.path().join("small");
    std::fs::create_dir(&mount).expect("creates");
    // A file system of 32 MiB of its own, in a mount namespace that ends with the child.
    let script = format!("mount -t tmpfs -o size=32m none {0} && exec \"$@\"", mount.display());
    let inner = child(test, engine, &mount);
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]);
    outer.arg(inner.get_program()).args(inner.get_args()).env(CHILD, &mount).env(ENGINE, engine.name());
    let status = match outer.status() {
        Ok(status) => status,
        Err(error) => return eprintln!("not tested, unshare cannot be run: {error}"),
    };
    if !mount_works() {
        return eprintln!("not tested, this system lets nobody mount");
    }
    assert!(status.success(), "{status}");
}

fn mount_works() -> bool {
    let args = ["--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"];
    Command::new("unshare").args(args).status().is_ok_and(|status| status.success())
}

async fn fill_the_disk(directory: &Path) {
    let store = open(directory);
    let put = |store: &Arc<dyn Store>, key: String, step: u64| {
        let (store, op) = (store.clone(), Op::put(key, value(step)));
        async move { store.txn(Txn { success: vec![op], ..Txn::default() }).await }
    };
    let mut acknowledged = Vec::new();
    let mut refusals = 0;
    for step in 0..5000 {
        match put(&store, format!("/{step:05}"), step).await {
            Ok(_) => acknowledged.push(step),
            Err(Error::NoSpace(message)) => {
                assert!(message.contains(engine().name()), "{message}");
                refusals += 1;
                if refusals == 20 {
                    break;
                }
            }
            Err(other) => panic!("step {step}: {other}"),
        }
    }
    assert!(refusals == 20 && acknowledged.len() > 50, "{} written, {refusals} refused", acknowledged.len());
    let all = |store: Arc<dyn Store>| async move {
        let read = store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads go on");
        read.kvs.iter().map(|kv| u64::from_be_bytes(kv.value[..8].try_into().expect("long enough"))).collect::<Vec<_>>()
    };
    store.trim();
    store.trim();
    assert_eq!(all(store.clone()).await, acknowledged);
    // It also starts when others have taken the rest.
    let mut hog = std::fs::File::create(directory.join("hog")).expect("creates");
    for size in [1 << 16, 1 << 12] {
        while hog.write_all(&vec![1; size]).is_ok() {}
    }
    store.close().await.expect("closes");
    drop(store);
    let store = open(directory);
    assert_eq!(all(store.clone()).await, acknowledged);
    // What empties the store works, also while others put.
    let more = (0..130).map(|n| Op::put(format!("/more/{n}"), value(4))).collect();
    let more = Txn { success: more, ..Txn::default() };
    for gone in acknowledged.drain(..acknowledged.len() / 2) {
        let op = Op::Delete(KeyRange::key(format!("/{gone:05}")));
        let delete = store.txn(Txn { success: vec![op], ..Txn::default() });
        // More than is ever left.
        let (refused, deleted) = tokio::join!(store.txn(more.clone()), delete);
        assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
        deleted.unwrap_or_else(|error| panic!("delete {gone}: {error}"));
    }
    store.compact(store.revision()).await.expect("compacts");
    store.defragment().await.expect("purges");
    assert_eq!(all(store.clone()).await, acknowledged);
    assert!(store.condition().alarm.is_some_and(|alarm| alarm.contains("bytes are needed")));
    let revision = store.revision();
    // Room comes back: writing goes on without a restart.
    let remount = Command::new("mount").args(["-o", "remount,size=96m"]).arg(directory).status().expect("runs");
    assert!(remount.success());
    put(&store, "/again".into(), 7).await.expect("works again");
    assert_eq!(store.condition().alarm, None);
    assert_eq!(store.revision(), Revision(revision.0 + 1));
    store.close().await.expect("closes");
    let store = open(directory);
    assert_eq!(all(store.clone()).await, [&acknowledged[..], &[7]].concat());
    store.close().await.expect("closes");
}

/// An I/O error in the middle of a write (here: the largest file size that the system allows) is answered, reads go on,
/// and the store works again when its cause has gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_is_got_over() {
    let Some(directory) = child_directory() else {
        for engine in Kind::ALL {
            let scratch = tempfile::tempdir().expect("scratch");
            let status = child("an_io_error_is_got_over", engine, scratch.path()).status().expect("runs");
            assert!(status.success(), "{engine:?}: {status}");
        }
        return;
    };
    // SAFETY: ignoring a signal touches no memory of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let limit =
        |bytes| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, bytes, libc::RLIM_INFINITY);
    let store = open(&directory);
    let put = |step: u64| {
        let op = Op::put(format!("/{step}"), value(step));
        store.txn(Txn { success: vec![op], ..Txn::default() })
    };
    let mut acknowledged = Vec::new();
    for round in 0..3u64 {
        limit(written_up_to(&directory) + 100_000).expect("limits");
        let mut failures = Vec::new();
        for step in 0..400 {
            let step = round * 1000 + step;
            match put(step).await {
                Ok(_) => acknowledged.push(step),
                Err(error) => failures.push(error.to_string()),
            }
            if failures.len() == 3 {
                break;
            }
        }
        // sled broke, and was not opened again while that had no prospect.
        let wanted = if engine() == Kind::Sled { "trying to write" } else { "writing to the store" };
        assert!(failures.len() == 3 && failures[2].contains(wanted), "{failures:?}");
        // Not from memory.
        store.trim();
        store.trim();
        let read = store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads go on");
        assert_eq!(read.kvs.len(), acknowledged.len());
        limit(libc::RLIM_INFINITY).expect("limits no more");
        put(round * 1000 + 999).await.expect("works again");
        acknowledged.push(round * 1000 + 999);
        assert_eq!(store.revision().0, 1 + acknowledged.len() as u64);
    }
    store.close().await.expect("closes");
    let store = open(&directory);
    for step in acknowledged {
        let read = store.range(RangeRequest::of(KeyRange::key(format!("/{step}")))).await.expect("reads");
        assert_eq!(read.kvs.first().map(|kv| &kv.value[..]), Some(&value(step)[..]), "{step}");
    }
}

/// Where in the store's newest file the next write goes.
fn written_up_to(directory: &Path) -> u64 {
    let store = directory.join("store");
    if engine() == Kind::Sled {
        return std::fs::metadata(store.join("sled/db")).expect("is there").len();
    }
    // Small values first: one segment is enough.
    let segment = std::fs::read(store.join("log/000001.seg")).expect("reads");
    segment.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// A second process is refused with a message that names the directory.
#[tokio::test]
async fn a_second_process_is_refused() {
    if let Some(directory) = child_directory() {
        let error = Local::open(directory.join("store"), Options::default()).err().expect("is refused");
        println!("refused: {error}");
        return std::io::stdout().flush().expect("flushes");
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let store = open(scratch.path());
    let output = child("a_second_process_is_refused", Kind::Log, scratch.path()).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let wanted =
        format!("{} is in use by another process (pid {})", scratch.path().join("store").display(), std::process::id());
    assert!(text.contains(&wanted), "{text}");
    store.close().await.expect("closes");
    drop(store);
    tokio::time::sleep(Duration::from_millis(1)).await;
    open(scratch.path());
}
