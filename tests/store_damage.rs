//! The store on damaged files: cut off, with flipped bits, with sectors of zeros, with files missing. Either everything
//! acknowledged is there, or a loss is on record and the store holds exactly what it says; never silently wrong, never a
//! panic.

mod store_common;

use kedge::store::condition::Loss;
use kedge::store::local::engine::Kind;
use kedge::store::{Error, KeyRange, Op, RangeRequest, Txn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use store_common::{open, open_with, try_open, value};

/// How many damages of each kind are tried; `KEDGE_TRIALS` overrides.
const TRIALS: usize = 40;
/// Snapshots are taken after a quarter and half of the steps.
const SNAPSHOTS: [u64; 2] = [4, 2];
const SLED_SEGMENT: u64 = 512 << 10;

/// So many that the log has had segments dropped, and used again.
fn steps(engine: Kind) -> u64 {
    if engine == Kind::Sled { 240 } else { 1000 }
}

fn trials() -> usize {
    std::env::var("KEDGE_TRIALS").ok().and_then(|trials| trials.parse().ok()).unwrap_or(TRIALS)
}

/// A closed store and the state it had after each revision.
struct Original {
    engine: Kind,
    directory: tempfile::TempDir,
    states: BTreeMap<u64, BTreeMap<String, u64>>,
    /// Revisions of the snapshots, oldest first.
    snapshots: Vec<u64>,
}

impl Original {
    async fn make(engine: Kind, with_snapshots: bool) -> Self {
        let directory = tempfile::tempdir().expect("scratch");
        let store = open_with(directory.path(), engine);
        let mut states = BTreeMap::from([(1, BTreeMap::new())]);
        let mut state = BTreeMap::new();
        let mut snapshots = Vec::new();
        for step in 1..=steps(engine) {
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
            if with_snapshots && SNAPSHOTS.iter().any(|part| step == steps(engine) / part) {
                let taken = store.rolling().expect("has them").take(&*store).await.expect("is taken");
                snapshots.push(taken.revision.0);
            }
        }
        store.close().await.expect("closes");
        Original { engine, directory, states, snapshots }
    }

    /// The files that hold the records, with the bytes of each that were written.
    fn files(&self) -> Vec<(String, usize)> {
        let copied = self.copy();
        let directory = self.engine.name();
        let mut names: Vec<String> = match self.engine {
            Kind::Sled => vec!["sled/db".to_owned()],
            Kind::Log => names_in(&copied.path(directory)).iter().map(|name| format!("{directory}/{name}")).collect(),
        };
        names.sort();
        let written = |name: &String| {
            let bytes = fs::read(copied.path(name)).expect("reads");
            bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
        };
        names.into_iter().map(|name| (name.clone(), written(&name))).filter(|(_, bytes)| *bytes > 0).collect()
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

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("lists").flatten().filter(|entry| entry.path().is_file());
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn tally(losses: &[Option<Loss>], engine: Kind, what: &str) {
    let lost: Vec<u64> = losses.iter().flatten().map(|loss| loss.last_lost + 1 - loss.first_lost).collect();
    let most = lost.iter().max().copied().unwrap_or(0);
    let (tried, with) = (losses.len(), lost.len());
    println!("{engine:?}, {what}: {tried} tried, {with} with a loss on record, of {most} revisions at most");
    assert!(with > 0, "no damage was noticed");
}

/// A place in what was written of the files.
fn somewhere(files: &[(String, usize)], random: &mut StdRng) -> (String, usize) {
    let mut at = random.random_range(0..files.iter().map(|(_, bytes)| bytes).sum());
    for (name, bytes) in files {
        if at < *bytes {
            return (name.clone(), at);
        }
        at -= bytes;
    }
    panic!("no bytes");
}

#[tokio::test]
async fn untouched_files_have_lost_nothing() {
    for engine in Kind::ALL {
        let original = Original::make(engine, true).await;
        assert_eq!(original.judge(&original.copy(), "none").await, None);
        if engine == Kind::Log {
            let names: Vec<String> = original.files().into_iter().map(|(name, _)| name).collect();
            assert!(!names.contains(&"log/000001.seg".to_owned()) || names.len() < 8, "nothing was dropped: {names:?}");
        }
    }
}

/// Files cut at offsets all over the end: of sled's its last two segments, of the log all that is written in each.
#[tokio::test]
async fn cut_files() {
    for engine in Kind::ALL {
        let original = Original::make(engine, true).await;
        let files = original.files();
        let mut losses = Vec::new();
        for trial in 0..trials() {
            let (name, length) = &files[trial % files.len()];
            let from = if engine == Kind::Sled { length.saturating_sub(2 * SLED_SEGMENT as usize) } else { 0 };
            // Not always at the same place within a sector.
            let at = from + (length - from) / trials() * trial + trial % 512;
            let copied = original.copy();
            copied.change(name, |bytes| bytes.truncate(at));
            losses.push(original.judge(&copied, &format!("{name} cut at {at} of {length}")).await);
        }
        tally(&losses, engine, "cuts");
    }
}

#[tokio::test]
async fn flipped_bits_and_zeroed_sectors() {
    for engine in Kind::ALL {
        let original = Original::make(engine, true).await;
        let (files, mut random) = (original.files(), StdRng::seed_from_u64(7));
        let mut losses = Vec::new();
        for trial in 0..trials() * 2 {
            let copied = original.copy();
            let (name, at) = somewhere(&files, &mut random);
            let bit = random.random_range(0..8);
            copied.change(&name, |bytes| match trial % 2 {
                0 => bytes[at] ^= 1 << bit,
                _ => {
                    let sector = at / 512 * 512;
                    let end = bytes.len().min(sector + 512);
                    bytes[sector..end].fill(0);
                }
            });
            losses.push(original.judge(&copied, &format!("trial {trial}: {name} at {at}, bit {bit}")).await);
        }
        tally(&losses, engine, "flips and zeros");
    }
}

/// sled takes a segment with a broken header for a free one, and goes on behind it.
#[tokio::test]
async fn damaged_segment_headers() {
    for engine in Kind::ALL {
        let mut losses = Vec::new();
        for round in 0..trials() / 10 {
            // Which segments are used again is not the same every time.
            let original = Original::make(engine, true).await;
            let mut places = Vec::new();
            for (name, length) in original.files() {
                let segment = if engine == Kind::Sled { SLED_SEGMENT as usize } else { length };
                places.extend((0..length / segment).map(|number| (name.clone(), number * segment + 4 * (round % 5))));
            }
            for (name, at) in places {
                let copied = original.copy();
                copied.change(&name, |bytes| bytes[at] ^= 1);
                losses.push(original.judge(&copied, &format!("round {round}: {name} flipped at {at}")).await);
            }
        }
        tally(&losses, engine, "segment headers");
    }
}

#[tokio::test]
async fn other_files_damaged_or_gone() {
    for engine in Kind::ALL {
        let original = Original::make(engine, true).await;
        let directory = engine.name();
        let mut losses = Vec::new();
        for name in names_in(&original.copy().path(directory)).iter().map(|name| format!("{directory}/{name}")) {
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
        fs::remove_dir_all(copied.path(directory)).expect("removes");
        fs::create_dir(copied.path(directory)).expect("creates");
        let loss = original.judge(&copied, "all files are gone").await.expect("is on record");
        assert_eq!(loss.first_lost - 1, original.snapshots[1]);
        // The newest snapshot is damaged, too: the one before it is taken.
        let copied = original.copy();
        fs::remove_dir_all(copied.path(directory)).expect("removes");
        copied.change(&format!("snapshots/{:020}.snapshot", original.snapshots[1]), |bytes| bytes[100] ^= 1);
        let loss = original.judge(&copied, "and the newest snapshot").await.expect("is on record");
        assert_eq!(loss.first_lost - 1, original.snapshots[0]);
        tally(&losses, engine, "other files");
    }
}

/// Segments of the log as they were some time ago: what a disk gives back that lost a write it had promised to keep.
#[tokio::test]
async fn files_of_the_past() {
    let mut original = Original::make(Kind::Log, true).await;
    let early = original.copy();
    let store = open(original.directory.path());
    let mut state = original.states.last_key_value().expect("some").1.clone();
    for number in 0..200 {
        let put = Op::put("/more", value(number));
        let written = store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes").revision;
        state.insert("/more".to_owned(), number);
        original.states.insert(written.0, state.clone());
    }
    store.close().await.expect("closes");
    drop(store);
    let mut losses = Vec::new();
    for (name, _) in original.files() {
        if let Ok(before) = fs::read(early.path(&name)) {
            let copied = original.copy();
            copied.change(&name, |bytes| *bytes = before);
            losses.push(original.judge(&copied, &format!("{name} is an old one")).await);
        }
    }
    tally(&losses, Kind::Log, "files of the past");
}

/// Without any snapshot: refused with a clear message, or the part that is left with the loss on record. Not an empty
/// store.
#[tokio::test]
async fn without_a_snapshot() {
    for engine in Kind::ALL {
        let original = Original::make(engine, false).await;
        let (files, mut random) = (original.files(), StdRng::seed_from_u64(8));
        let mut refused = 0;
        for trial in 0..trials() {
            let copied = original.copy();
            let (name, at) = somewhere(&files, &mut random);
            copied.change(&name, |bytes| bytes[at] ^= 16);
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
        println!("{engine:?}: {refused} of {} refused", trials());
    }
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
