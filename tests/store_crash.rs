//! The store under `kill -9` and on a full disk: what was acknowledged is there, also in the next process.
//!
//! The tests start this executable again as a child: a test that finds its variable set is that child.

use kedge::store::sled::{Options, Sled};
use kedge::store::{Error, KeyRange, Op, RangeRequest, Revision, Store, Txn};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CHILD: &str = "KEDGE_STORE_CHILD";
const WRITERS: usize = 8;

fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, directory);
    command
}

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

fn open(directory: &Path) -> Arc<dyn Store> {
    Sled::open(directory.join("store"), Options::default()).expect("opens")
}

/// A value that can be checked: its step, then noise of a length that depends on it.
fn value(step: u64) -> Vec<u8> {
    let len = [20, 700, 3_000, 9_000, 60_000][(step % 5) as usize];
    let mut state = step;
    let mut bytes = step.to_be_bytes().to_vec();
    bytes.resize_with(len, || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    });
    bytes
}

/// Each writer owns some keys and writes them in turn, two keys in one transaction, now and then deleting one, while
/// the store is compacted; each acknowledgement becomes a line `key step` (step 0: deleted).
async fn write_for_ever(store: Arc<dyn Store>, round: u64) {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.push(async move {
            for step in 1.. {
                let step = round * 1_000_000 + step;
                let key = format!("/{writer}/{}", step % 20);
                let first = Op::Put { key: key.clone().into(), value: value(step).into() };
                let second = match step % 7 {
                    0 => Op::Delete(KeyRange::key(format!("{key}/twin"))),
                    _ => Op::Put { key: format!("{key}/twin").into(), value: value(step).into() },
                };
                let txn = Txn { success: vec![first, second], ..Txn::default() };
                let response = store.txn(txn).await.expect("writes");
                println!("{key} {step} {}", response.revision);
                if step % 100 == 0 {
                    let compacted = store.compact(Revision(response.revision.0.saturating_sub(50))).await;
                    assert!(matches!(compacted, Ok(()) | Err(Error::Compacted(_))), "{compacted:?}");
                }
            }
        });
    }
    futures::future::join_all(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_lose_nothing_acknowledged() {
    if let Some(directory) = child_directory() {
        let round = directory.join("round");
        let round = std::fs::read_to_string(round).expect("round").parse().expect("number");
        return write_for_ever(open(&directory), round).await;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    // Acknowledged per key: the step and its revision.
    let mut acknowledged: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for round in 1..=8u64 {
        std::fs::write(scratch.path().join("round"), round.to_string()).expect("writes");
        let mut process = child("killed_processes_lose_nothing_acknowledged", scratch.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let wanted = 150 * round as usize;
        let mut seen = 0;
        while let Some(line) = lines.next() {
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

/// Everything acknowledged is there, or something newer of the same writer; transactions are whole.
async fn check(directory: &Path, acknowledged: &BTreeMap<String, (u64, u64)>) {
    let store = open(directory);
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap_or(0);
    assert!(store.revision().0 >= newest, "revision {} after {newest} was acknowledged", store.revision());
    for (key, (step, revision)) in acknowledged {
        let read = store.range(RangeRequest::of(KeyRange::prefix(key.clone()))).await.expect("reads");
        let get = |name: &str| read.kvs.iter().find(|kv| kv.key == name.as_bytes());
        let kv = get(key).unwrap_or_else(|| panic!("{key} at step {step} is gone"));
        let found = u64::from_be_bytes(kv.value[..8].try_into().expect("long enough"));
        assert!(found >= *step && kv.mod_revision.0 >= *revision, "{key}: {found} instead of {step}");
        assert_eq!(kv.value, value(found), "{key} at {found}");
        let twin = get(&format!("{key}/twin"));
        match found % 7 {
            0 => assert_eq!(twin, None, "{key} at {found}: its twin was deleted with it"),
            _ => {
                let twin = twin.unwrap_or_else(|| panic!("{key} at {found}: no twin"));
                assert_eq!((twin.mod_revision, &twin.value), (kv.mod_revision, &kv.value));
            }
        }
    }
    store.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_only() {
    if let Some(directory) = child_directory() {
        return fill_the_disk(&directory).await;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let mount = scratch.path().join("small");
    std::fs::create_dir(&mount).expect("creates");
    // A file system of 16 MiB of its own, in a mount namespace that ends with the child.
    let script = format!("mount -t tmpfs -o size=16m none {0} && exec \"$@\"", mount.display());
    let inner = child("a_full_disk_stops_writes_only", &mount);
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]);
    outer.arg(inner.get_program()).args(inner.get_args()).env(CHILD, &mount);
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
    let put = |key: String, step: u64| {
        let op = Op::Put { key: key.into(), value: value(step).into() };
        store.txn(Txn { success: vec![op], ..Txn::default() })
    };
    let mut acknowledged = Vec::new();
    let mut refusals = 0;
    for step in 0..5000 {
        match put(format!("/{step:05}"), step).await {
            Ok(_) => acknowledged.push(step),
            Err(Error::NoSpace(message)) => {
                assert!(message.contains("sled"), "{message}");
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
    let revision = store.revision();
    // Room comes back: writing goes on without a restart.
    let remount = Command::new("mount").args(["-o", "remount,size=64m"]).arg(directory).status().expect("runs");
    assert!(remount.success());
    put("/again".into(), 7).await.expect("works again");
    assert_eq!(store.revision(), Revision(revision.0 + 1));
    store.close().await.expect("closes");
    let store = open(directory);
    assert_eq!(all(store.clone()).await, [&acknowledged[..], &[7]].concat());
    store.close().await.expect("closes");
}

/// A second process is refused with a message that names the directory.
#[tokio::test]
async fn a_second_process_is_refused() {
    if let Some(directory) = child_directory() {
        let error = Sled::open(directory.join("store"), Options::default()).err().expect("is refused");
        println!("refused: {error}");
        return std::io::stdout().flush().expect("flushes");
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let store = open(scratch.path());
    let output = child("a_second_process_is_refused", scratch.path()).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let wanted =
        format!("{} is in use by another process (pid {})", scratch.path().join("store").display(), std::process::id());
    assert!(text.contains(&wanted), "{text}");
    store.close().await.expect("closes");
    drop(store);
    tokio::time::sleep(Duration::from_millis(1)).await;
    open(scratch.path());
}
