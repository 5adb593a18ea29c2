//! The store on damaged files: cut off, with flipped bits, with sectors of zeros, with files missing. Either everything
//! acknowledged is there, or a loss is on record and the store holds exactly what it says; never silently wrong, never a
//! panic.

mod store_common;

use kedge::store::condition::Loss;
use kedge::store::{Error, KeyRange, Op, RangeRequest, Txn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use store_common::{open, try_open, value};

/// How many damages of each kind are tried; `KEDGE_TRIALS` overrides.
const TRIALS: usize = 40;
const STEPS: u64 = 240;
/// Snapshots are taken after these steps.
const SNAPSHOTS: [u64; 2] = [60, 120];
const SEGMENT: u64 = 512 << 10;

fn trials() -> usize {
    std::env::var("KEDGE_TRIALS").ok().and_then(|trials| trials.parse().ok()).unwrap_or(TRIALS)
}

/// A closed store and the state it had after each revision.
struct Original {
    directory: tempfile::TempDir,
    states: BTreeMap<u64, BTreeMap<String, u64>>,
    /// Revisions of the snapshots, oldest first.
    snapshots: Vec<u64>,
}

impl Original {
    async fn make(with_snapshots: bool) -> Self {
        let directory = tempfile::tempdir().expect("scratch");
        let store = open(directory.path());
        let mut states = BTreeMap::from([(1, BTreeMap::new())]);
        let mut state = BTreeMap::new();
        let mut snapshots = Vec::new();
        for step in 1..=STEPS {
            let key = format!("/{}", step % 30);
            let op = match step % 7 {
                0 => Op::Delete(KeyRange::key(format!("/{}", (step + 3) % 30))),
                _ => Op::put(key.clone(), value(step)),
            };
            let response = store.txn(Txn { success: vec![op], ..Txn::default() }).await.expect("writes");
            match step % 7 {
                0 => drop(state.remove(&format!("/{}", (step + 3) % 30))),
                _ => drop(state.insert(key, step)),
            }
            states.insert(response.revision.0, state.clone());
            if step % 50 == 0 {
                store.compact(store.revision()).await.expect("compacts");
            }
            if with_snapshots && SNAPSHOTS.contains(&step) {
                let taken = store.rolling().expect("has them").take(&*store).await.expect("is taken");
                snapshots.push(taken.revision.0);
            }
        }
        store.close().await.expect("closes");
        Original { directory, states, snapshots }
    }

    fn newest(&self) -> u64 {
        *self.states.keys().next_back().expect("some")
    }

    /// A copy that may be damaged.
    fn copy(&self) -> Copied {
        let copy = tempfile::tempdir().expect("scratch");
        copy_tree(self.directory.path(), copy.path());
        Copied(copy)
    }

    /// Open a damaged copy and judge it; gives the loss on record.
    async fn judge(&self, copied: &Copied, damage: &str) -> Option<Loss> {
        let store = try_open(copied.0.path()).unwrap_or_else(|error| panic!("{damage}: {error}"));
        let losses = store.condition().losses;
        let recorded = fs::read_to_string(copied.path("losses.json")).unwrap_or_default();
        let holds = match losses.last() {
            None => self.newest(),
            Some(loss) => {
                assert!(recorded.contains(&loss.cause), "{damage}: {recorded}");
                assert!(store.revision().0 > self.newest() && store.compacted() == store.revision(), "{damage}");
                assert_eq!(loss.last_lost, self.newest(), "{damage}: {loss}");
                loss.first_lost - 1
            }
        };
        let wanted = self.states.range(..=holds).next_back().expect("a state").1;
        let read = store.range(RangeRequest::of(KeyRange::prefix("/"))).await;
        let read = read.unwrap_or_else(|error| panic!("{damage}: {error}"));
        let found: BTreeMap<String, u64> = read.kvs.iter().map(|kv| (text(&kv.key), step(&kv.value))).collect();
        assert_eq!(&found, wanted, "{damage}: {losses:?}");
        let put = Op::put("/new", value(1));
        let before = store.revision();
        let written = store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes again");
        assert_eq!(written.revision.0, before.0 + 1, "{damage}");
        store.close().await.expect("closes");
        drop(store);
        // Repaired for good.
        let store = try_open(copied.0.path()).unwrap_or_else(|error| panic!("{damage}, again: {error}"));
        assert_eq!((store.condition().losses, store.revision()), (losses.clone(), written.revision), "{damage}");
        store.close().await.expect("closes");
        losses.into_iter().last()
    }
}

struct Copied(tempfile::TempDir);

impl Copied {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("store").join(name)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.path(name);
        let mut bytes = fs::read(&path).expect("reads");
        change(&mut bytes);
        fs::write(path, bytes).expect("writes");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copies")),
        }
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The step that wrote a value, which is checked to its last byte.
fn step(bytes: &[u8]) -> u64 {
    let step = u64::from_be_bytes(bytes[..8].try_into().expect("long enough"));
    assert_eq!(bytes, value(step), "step {step}");
    step
}

fn tally(losses: &[Option<Loss>], what: &str) {
    let lost: Vec<u64> = losses.iter().flatten().map(|loss| loss.last_lost + 1 - loss.first_lost).collect();
    let most = lost.iter().max().copied().unwrap_or(0);
    println!("{what}: {} tried, {} with a loss on record, of {most} revisions at most", losses.len(), lost.len());
}

#[tokio::test]
async fn untouched_files_have_lost_nothing() {
    let original = Original::make(true).await;
    assert_eq!(original.judge(&original.copy(), "none").await, None);
}

/// The file cut at offsets all over its last two segments.
#[tokio::test]
async fn cut_files() {
    let original = Original::make(true).await;
    let length = fs::metadata(original.copy().path("sled/db")).expect("is there").len();
    let from = length.saturating_sub(2 * SEGMENT);
    let stride = (length - from) / trials() as u64;
    let mut losses = Vec::new();
    for trial in 0..trials() as u64 {
        let copied = original.copy();
        // Not always at the same place within a sector.
        let at = from + trial * stride + trial % 512;
        copied.change("sled/db", |bytes| bytes.truncate(at as usize));
        losses.push(original.judge(&copied, &format!("cut at {at} of {length}")).await);
    }
    tally(&losses, "cuts");
    assert!(losses.iter().any(Option::is_some), "no cut was noticed");
}

#[tokio::test]
async fn flipped_bits_and_zeroed_sectors() {
    let original = Original::make(true).await;
    let mut random = StdRng::seed_from_u64(7);
    let mut losses = Vec::new();
    for trial in 0..trials() * 2 {
        let copied = original.copy();
        let mut damage = String::new();
        copied.change("sled/db", |bytes| {
            let at = random.random_range(0..bytes.len());
            let bit = random.random_range(0..8);
            match trial % 2 {
                0 => bytes[at] ^= 1 << bit,
                _ => {
                    let sector = at / 512 * 512;
                    let end = bytes.len().min(sector + 512);
                    bytes[sector..end].fill(0);
                }
            }
            damage = format!("trial {trial}: at {at}, bit {bit}");
        });
        losses.push(original.judge(&copied, &damage).await);
    }
    tally(&losses, "flips and zeros");
    assert!(losses.iter().any(Option::is_some), "no damage was noticed");
}

/// sled takes a segment with a broken header for a free one, and goes on behind it.
#[tokio::test]
async fn damaged_segment_headers() {
    let mut losses = Vec::new();
    for round in 0..trials() / 10 {
        // Which segments are used again is not the same every time.
        let original = Original::make(true).await;
        let length = fs::metadata(original.copy().path("sled/db")).expect("is there").len();
        for segment in 0..length / SEGMENT {
            let copied = original.copy();
            let at = segment * SEGMENT + 4 * (round as u64 % 5);
            copied.change("sled/db", |bytes| bytes[at as usize] ^= 1);
            losses.push(original.judge(&copied, &format!("round {round}: flipped at {at} of {length}")).await);
        }
    }
    tally(&losses, "segment headers");
    assert!(losses.iter().any(Option::is_some), "no damage was noticed");
}

#[tokio::test]
async fn other_files_damaged_or_gone() {
    let original = Original::make(true).await;
    let sled_files = |copied: &Copied| {
        let entries = fs::read_dir(copied.path("sled")).expect("lists").flatten();
        entries.filter(|e| e.path().is_file()).map(|e| format!("sled/{}", e.file_name().display())).collect::<Vec<_>>()
    };
    let mut losses = Vec::new();
    for name in sled_files(&original.copy()) {
        let copied = original.copy();
        fs::remove_file(copied.path(&name)).expect("removes");
        losses.push(original.judge(&copied, &format!("{name} is gone")).await);
        for at in [0, 11, 40] {
            let copied = original.copy();
            copied.change(&name, |bytes| bytes[at] ^= 8);
            losses.push(original.judge(&copied, &format!("{name} flipped at {at}")).await);
            let copied = original.copy();
            copied.change(&name, |bytes| bytes.truncate(at));
            losses.push(original.judge(&copied, &format!("{name} cut at {at}")).await);
        }
    }
    let copied = original.copy();
    fs::remove_dir_all(copied.path("sled")).expect("removes");
    let loss = original.judge(&copied, "all of sled's files are gone").await.expect("is on record");
    assert_eq!(loss.first_lost - 1, original.snapshots[1]);
    // The newest snapshot is damaged, too: the one before it is taken.
    let copied = original.copy();
    fs::remove_dir_all(copied.path("sled")).expect("removes");
    copied.change(&format!("snapshots/{:020}.snapshot", original.snapshots[1]), |bytes| bytes[100] ^= 1);
    let loss = original.judge(&copied, "and the newest snapshot").await.expect("is on record");
    assert_eq!(loss.first_lost - 1, original.snapshots[0]);
    tally(&losses, "other files");
}

/// Without any snapshot: refused with a clear message, or the part that is left with the loss on record. Not an empty
/// store.
#[tokio::test]
async fn without_a_snapshot() {
    let original = Original::make(false).await;
    let mut random = StdRng::seed_from_u64(8);
    let mut refused = 0;
    for trial in 0..trials() {
        let copied = original.copy();
        copied.change("sled/db", |bytes| {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 16;
        });
        match try_open(copied.0.path()) {
            Ok(store) => {
                store.close().await.expect("closes");
                drop(store);
                original.judge_again(&copied).await;
            }
            Err(Error::Damaged(message)) => {
                assert!(message.contains("kedge backup restore"), "trial {trial}: {message}");
                refused += 1;
            }
            Err(other) => panic!("trial {trial}: {other}"),
        }
    }
    println!("{refused} of {} refused", trials());
}

impl Original {
    /// A store that opened holds a state that there once was.
    async fn judge_again(&self, copied: &Copied) {
        let store = open(copied.0.path());
        let holds = store.condition().losses.last().map_or(self.newest(), |loss| loss.first_lost - 1);
        let read = store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads");
        let found: BTreeMap<String, u64> = read.kvs.iter().map(|kv| (text(&kv.key), step(&kv.value))).collect();
        assert_eq!(&found, self.states.range(..=holds).next_back().expect("a state").1);
        store.close().await.expect("closes");
    }
}
