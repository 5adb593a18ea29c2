//! Concurrent clients against a model, with the process killed again and again: every answer must be one that some order
//! of the operations explains in which each takes effect between its call and its answer (linearizability). Revisions
//! give that order, so it is checked, not searched for.
//!
//! `KEDGE_SEED` repeats a run's choices; `KEDGE_MODEL_SECONDS=3600` runs for an hour.

mod store_common;

use kedge::store::{
    Compare, Error, EventKind, KeyRange, Op, OpResponse, RangeRequest, Revision, Store, Txn, TxnResponse, WatchMessage,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store_common::open;

const CHILD: &str = "KEDGE_STORE_CHILD";
const CLIENTS: u64 = 8;
const KEYS: u64 = 6;
const ROUNDS: u64 = 4;
/// Answers after which the child is killed, at most.
const ANSWERS: usize = 900;

/// What happened in a child, one a line. `at` counts calls and answers in the order in which they happened.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Line {
    Call {
        at: u64,
        id: u64,
    },
    /// A write that was done: its revision, and the value that was there before (None: none; a delete may find nothing
    /// and then has the revision of a read).
    Wrote {
        at: u64,
        id: u64,
        key: String,
        deleted: bool,
        revision: u64,
        before: Option<String>,
    },
    /// A compare-and-set: on which revision of the key, and whether it held.
    Swapped {
        at: u64,
        id: u64,
        key: String,
        on: u64,
        held: bool,
        revision: u64,
    },
    Read {
        at: u64,
        id: u64,
        revision: u64,
        found: BTreeMap<String, (String, u64)>,
    },
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

fn tick() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

fn say(line: &Line) {
    let mut text = serde_json::to_vec(line).expect("encodes");
    text.push(b'\n');
    std::io::stdout().lock().write_all(&text).expect("is heard");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Operations of one client until the process ends. `first`: the lowest id it may use.
async fn client(store: &dyn Store, mut random: StdRng, first: u64, floor: u64) {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for id in first.. {
        let key = format!("/k/{}", random.random_range(0..KEYS));
        let put = || Op::put(key.clone(), format!("v{id}"));
        let at = tick();
        say(&Line::Call { at, id });
        let run = |compare, op, otherwise| store.txn(Txn { compare, success: vec![op], failure: otherwise });
        match random.random_range(0..100) {
            0..40 => {
                let TxnResponse { revision, responses, .. } = run(vec![], put(), vec![]).await.expect("writes");
                let Some(OpResponse::Put { previous }) = responses.first() else { panic!("{responses:?}") };
                let before = previous.as_ref().map(|kv| text(&kv.value));
                say(&Line::Wrote { at: tick(), id, key, deleted: false, revision: revision.0, before });
            }
            40..50 => {
                let delete = Op::Delete(KeyRange::key(key.clone()));
                let TxnResponse { revision, responses, .. } = run(vec![], delete, vec![]).await.expect("deletes");
                let Some(OpResponse::Delete { previous }) = responses.first() else { panic!("{responses:?}") };
                let before = previous.first().map(|kv| text(&kv.value));
                say(&Line::Wrote { at: tick(), id, key, deleted: true, revision: revision.0, before });
            }
            50..75 => {
                let on = seen.get(&key).copied().unwrap_or(0);
                let compare = vec![Compare::unchanged(key.clone(), Revision(on))];
                let done = run(compare, put(), vec![]).await.expect("runs");
                if done.succeeded {
                    seen.insert(key.clone(), done.revision.0);
                }
                let (held, revision) = (done.succeeded, done.revision.0);
                say(&Line::Swapped { at: tick(), id, key, on, held, revision });
            }
            75..99 => {
                let read = store.range(RangeRequest::of(KeyRange::prefix("/k/"))).await.expect("reads");
                let found: BTreeMap<String, (String, u64)> =
                    read.kvs.iter().map(|kv| (text(&kv.key), (text(&kv.value), kv.mod_revision.0))).collect();
                seen = found.iter().map(|(key, (_, revision))| (key.clone(), *revision)).collect();
                say(&Line::Read { at: tick(), id, revision: read.revision.0, found });
            }
            _ => match store.compact(Revision(random.random_range(1..=floor))).await {
                Ok(()) | Err(Error::Compacted(_)) => {}
                Err(other) => panic!("{other}"),
            },
        }
    }
}

/// What the store held after each revision: value and revision of each key.
type State = BTreeMap<String, (String, u64)>;

#[derive(Default)]
struct Model {
    states: BTreeMap<u64, State>,
    /// Last revision known.
    last: u64,
    /// Operations that were begun.
    begun: BTreeSet<u64>,
    checked: usize,
}

impl Model {
    fn at(&self, revision: u64) -> State {
        self.states.range(..=revision).next_back().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    /// Learn what was written since, from the store's own history; each revision is one write of one key.
    async fn learn(&mut self, store: &dyn Store) {
        let mut watch = store.watch(KeyRange::prefix("/"), Some(Revision(self.last + 1))).await.expect("watches");
        watch.request_progress();
        let mut state = self.at(self.last);
        loop {
            let events = match watch.next().await.expect("events") {
                WatchMessage::Events(events) => events,
                WatchMessage::Progress(revision) => {
                    assert_eq!(revision, store.revision());
                    self.last = revision.0;
                    return;
                }
            };
            for event in events {
                let (key, revision) = (text(&event.kv.key), event.kv.mod_revision.0);
                assert!(!self.states.contains_key(&revision), "two writes of revision {revision}");
                let before = event.previous.as_ref().map(|kv| text(&kv.value));
                assert_eq!(before.as_ref(), state.get(&key).map(|(value, _)| value), "before {revision}");
                match event.kind {
                    EventKind::Put => {
                        let value = text(&event.kv.value);
                        let id = value.strip_prefix('v').and_then(|id| id.parse().ok()).expect("an id");
                        assert!(self.begun.contains(&id), "{value} was never written");
                        state.insert(key, (value, revision));
                    }
                    EventKind::Delete => drop(state.remove(&key).expect("was there")),
                }
                self.states.insert(revision, state.clone());
            }
        }
    }

    /// Whether every answer of a child fits.
    fn check(&mut self, lines: &[Line]) {
        // The latest revision that was known to someone when an operation began.
        let mut began: BTreeMap<u64, u64> = BTreeMap::new();
        let mut known = 0;
        for line in lines {
            let (id, revision, is_write) = match line {
                Line::Call { id, .. } => {
                    began.insert(*id, known);
                    continue;
                }
                Line::Wrote { id, revision, deleted, before, .. } => (*id, *revision, !deleted || before.is_some()),
                Line::Swapped { id, revision, held, .. } => (*id, *revision, *held),
                Line::Read { id, revision, .. } => (*id, *revision, false),
            };
            let least = began.remove(&id).expect("was called") + u64::from(is_write);
            assert!(revision >= least, "{line:?} came after revision {least} had been seen");
            known = known.max(revision);
            let (before, after) = (self.at(revision - 1), self.at(revision));
            let value = |state: &State, key: &str| state.get(key).map(|(value, _)| value.clone());
            match line {
                Line::Wrote { key, before: found, deleted: false, .. } => {
                    assert_eq!(after.get(key), Some(&(format!("v{id}"), revision)), "{line:?}");
                    assert_eq!(&value(&before, key), found, "{line:?}");
                }
                Line::Wrote { key, before: Some(found), .. } => {
                    assert_eq!((value(&before, key).as_ref(), after.get(key)), (Some(found), None), "{line:?}");
                }
                Line::Wrote { key, before: None, .. } => assert_eq!(after.get(key), None, "{line:?}"),
                Line::Swapped { key, on, held: true, .. } => {
                    assert_eq!(before.get(key).map_or(0, |(_, revision)| *revision), *on, "{line:?}");
                    assert_eq!(after.get(key), Some(&(format!("v{id}"), revision)), "{line:?}");
                }
                Line::Swapped { key, on, .. } => {
                    assert_ne!(after.get(key).map_or(0, |(_, revision)| *revision), *on, "{line:?}");
                }
                Line::Read { found, .. } => assert_eq!(found, &after, "{line:?}"),
                Line::Call { .. } => {}
            }
            self.checked += 1;
        }
    }
}

/// Run a child until it has answered so often; kill it.
fn run_child(directory: &Path, seed: u64, answers: usize) -> Vec<Line> {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["concurrent_clients_see_one_order", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory)
        .env("KEDGE_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = Vec::new();
    let mut left = answers;
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        // The kill may cut the last line; the test runner speaks, too.
        let Some(line) = line.ok().and_then(|line| serde_json::from_str::<Line>(&line).ok()) else { continue };
        left = left.saturating_sub(usize::from(!matches!(line, Line::Call { .. })));
        lines.push(line);
        if left == 0 {
            let _ = child.kill();
        }
    }
    child.wait().expect("ends");
    assert_eq!(left, 0, "the child stopped by itself");
    lines.sort_by_key(|line| match line {
        Line::Call { at, .. } | Line::Wrote { at, .. } | Line::Swapped { at, .. } | Line::Read { at, .. } => *at,
    });
    lines
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_clients_see_one_order() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let seed = number("KEDGE_SEED").expect("a seed");
        let store = open(Path::new(&directory));
        let floor = store.revision().0;
        // The test runner has begun a line.
        println!();
        let clients = (0..CLIENTS).map(|number| {
            let random = StdRng::seed_from_u64(seed * 1000 + number);
            client(&*store, random, (seed * CLIENTS + number) << 24, floor)
        });
        return drop(futures::future::join_all(clients).await);
    }
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = number("KEDGE_SEED").unwrap_or(since_1970.as_secs() % 1_000_000);
    println!("KEDGE_SEED={seed}");
    let scratch = tempfile::tempdir().expect("scratch");
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model { last: 1, ..Model::default() };
    let until = number("KEDGE_MODEL_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rounds = 0;
    while until.map_or(rounds < ROUNDS, |until| Instant::now() < until) {
        rounds += 1;
        let answers = random.random_range(ANSWERS / 10..ANSWERS);
        let lines = run_child(scratch.path(), seed + rounds, answers);
        model
            .begun
            .extend(lines.iter().filter_map(|line| if let Line::Call { id, .. } = line { Some(*id) } else { None }));
        let store = open(scratch.path());
        assert!(store.condition().losses.is_empty() && store.revision().0 >= model.last, "round {rounds}");
        model.learn(&*store).await;
        store.close().await.expect("closes");
        model.check(&lines);
        // What is known is enough to go on from.
        let now = model.at(model.last);
        model.states = BTreeMap::from([(model.last, now)]);
        model.begun.clear();
    }
    println!("{rounds} rounds, {} answers checked, revision {}", model.checked, model.last);
    assert!(model.checked > 0);
}
