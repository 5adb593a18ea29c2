//! Random histories, the same on the backend and on the oracle; all answers must be equal. A failure names its seed.

use super::*;
use crate::store::Compare;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const STEPS: usize = 400;

struct Pair {
    backend: Backend,
    oracle: Arc<dyn Store>,
    tested: Arc<dyn Store>,
    random: StdRng,
}

#[tokio::test]
async fn sled_answers_as_the_oracle_does() {
    for seed in 0..12 {
        let backend = Backend::sled();
        let tested = backend.open();
        let random = StdRng::seed_from_u64(seed);
        let mut pair = Pair { backend, oracle: Memory::open(), tested, random };
        for step in 0..STEPS {
            let context = format!("seed {seed} step {step}");
            match pair.random.random_range(0..100) {
                0..60 => pair.txn(&context).await,
                60..80 => pair.range(&context).await,
                80..92 => pair.watch(&context).await,
                92..97 => pair.compact(&context).await,
                _ => pair.reopen().await,
            }
            assert_eq!(pair.tested.revision(), pair.oracle.revision(), "{context}");
            assert_eq!(pair.tested.compacted(), pair.oracle.compacted(), "{context}");
        }
    }
}

impl Pair {
    fn key(&mut self) -> Bytes {
        text(format!("/{}/{}", self.random.random_range(0..3), self.random.random_range(0..8)))
    }

    fn value(&mut self) -> Bytes {
        let len = *[0, 3, 300, 2000, 7000, 40_000].get(self.random.random_range(0..6)).expect("in range");
        let noise: bool = self.random.random();
        let mut byte = || if noise { self.random.random() } else { b'a' + self.random.random_range(0..2) };
        (0..len).map(|_| byte()).collect::<Vec<u8>>().into()
    }

    fn key_range(&mut self) -> KeyRange {
        match self.random.random_range(0..4) {
            0 => KeyRange::key(self.key()),
            1 => KeyRange::prefix(text("/")),
            2 => KeyRange::prefix(text(format!("/{}/", self.random.random_range(0..3)))),
            _ => KeyRange { start: self.key(), end: self.key() },
        }
    }

    fn revision(&mut self) -> Revision {
        let now = self.oracle.revision().0;
        let floor = self.oracle.compacted().0.saturating_sub(2);
        Revision(self.random.random_range(floor..=now + 1))
    }

    fn request(&mut self) -> RangeRequest {
        RangeRequest {
            range: self.key_range(),
            revision: if self.random.random() { Some(self.revision()) } else { None },
            limit: self.random.random_range(0..6),
            keys_only: self.random.random_bool(0.1),
            count_only: self.random.random_bool(0.1),
        }
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        match self.random.random_range(0..4) {
            0 => Compare::ModRevision(key, Revision(0)),
            1 => Compare::ModRevision(key, self.revision()),
            2 => Compare::Version(key, self.random.random_range(0..3)),
            _ => Compare::Value(key, Bytes::new()),
        }
    }

    fn ops(&mut self) -> Vec<Op> {
        let count = self.random.random_range(0..4);
        let mut op = || match self.random.random_range(0..10) {
            0..6 => Op::Put { key: self.key(), value: self.value() },
            6..8 => Op::Delete(KeyRange::key(self.key())),
            8 => Op::Delete(self.key_range()),
            _ => Op::Range(self.request()),
        };
        (0..count).map(|_| op()).collect()
    }

    async fn txn(&mut self, context: &str) {
        // Several at once, so that they share a barrier.
        let count = self.random.random_range(1..5);
        let txns: Vec<Txn> = (0..count)
            .map(|_| {
                let compare = (0..self.random.random_range(0..2)).map(|_| self.compare()).collect();
                Txn { compare, success: self.ops(), failure: self.ops() }
            })
            .collect();
        let tested = futures::future::join_all(txns.iter().map(|txn| self.tested.txn(txn.clone()))).await;
        for (txn, tested) in txns.into_iter().zip(tested) {
            let oracle = self.oracle.txn(txn.clone()).await;
            // What the store's revision was beside a read may be that of a transaction behind it in the batch.
            assert_eq!(format!("{tested:?}"), format!("{oracle:?}"), "{context}: {txn:?}");
        }
    }

    async fn range(&mut self, context: &str) {
        let request = self.request();
        let (tested, oracle) = (self.tested.range(request.clone()).await, self.oracle.range(request.clone()).await);
        assert_eq!(format!("{tested:?}"), format!("{oracle:?}"), "{context}: {request:?}");
    }

    async fn watch(&mut self, context: &str) {
        let range = self.key_range();
        let from = if self.random.random_bool(0.1) { None } else { Some(self.revision()) };
        let tested = events(&*self.tested, range.clone(), from).await;
        let oracle = events(&*self.oracle, range.clone(), from).await;
        assert_eq!(tested, oracle, "{context}: {range:?} from {from:?}");
    }

    async fn compact(&mut self, context: &str) {
        let revision = self.revision();
        let (tested, oracle) = (self.tested.compact(revision).await, self.oracle.compact(revision).await);
        assert_eq!(format!("{tested:?}"), format!("{oracle:?}"), "{context}: compact {revision}");
    }

    async fn reopen(&mut self) {
        if self.random.random() {
            self.tested.close().await.expect("closes");
        }
        // Dropped without closing, the store gives its directory back when its writer ends.
        self.tested = Memory::open();
        let Backend::Sled(path) = &self.backend else { return };
        for _ in 0..500 {
            match Sled::open(path.path().join("store"), Options::default()) {
                Ok(store) => {
                    self.tested = store;
                    return;
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
        panic!("the directory is never given back");
    }
}

/// All events from a revision, but for what the contract leaves open: the state before the compacted revision.
async fn events(store: &dyn Store, range: KeyRange, from: Option<Revision>) -> Result<Vec<String>, String> {
    let compacted = store.compacted();
    let mut watch = store.watch(range, from).await.map_err(|e| e.to_string())?;
    let events = drain(&mut *watch).await.map_err(|e| e.to_string())?;
    let without = |event: &Event| Event { previous: None, ..event.clone() };
    let show = |event: &Arc<Event>| {
        if event.kv.mod_revision <= compacted { show_event(&without(event)) } else { show_event(event) }
    };
    Ok(events.iter().map(show).collect())
}
