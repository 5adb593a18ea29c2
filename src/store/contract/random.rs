//! Random histories, the same on the backend and on the oracle; all answers must be equal. A failure names its seed.

use super::*;
use crate::store::{Compare, LeaseId, Put, Relation, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const STEPS: usize = 400;

struct Pair {
    backend: Backend,
    oracle: Arc<dyn Store>,
    tested: Arc<dyn Store>,
    random: StdRng,
}

impl Pair {
    async fn new(backend: Backend, seed: u64) -> Self {
        let tested = backend.open().await;
        Pair { backend, oracle: Memory::open(), tested, random: StdRng::seed_from_u64(seed) }
    }

    fn is_etcd(&self) -> bool {
        matches!(self.backend, Backend::Etcd(_))
    }
}

/// Fewer: each step is a call of a real etcd, which takes milliseconds on a slow disk.
const ETCD_STEPS: usize = 250;

#[tokio::test]
async fn etcd_answers_as_the_oracle_does() {
    for seed in 100..103 {
        let Some(real) = real::Real::start() else { return };
        let mut pair = Pair::new(Backend::Etcd(real), seed).await;
        for step in 0..ETCD_STEPS {
            let context = format!("seed {seed} step {step}");
            match pair.random.random_range(0..100) {
                0..60 => pair.txn(&context).await,
                60..80 => pair.range(&context).await,
                80..95 => pair.watch(&context).await,
                _ => pair.compact(&context).await,
            }
            assert_eq!(pair.tested.revision(), pair.oracle.revision(), "{context}");
            assert_eq!(pair.tested.compacted(), pair.oracle.compacted(), "{context}");
        }
    }
}

#[tokio::test]
async fn the_log_answers_as_the_oracle_does() {
    a_local_store_answers_as_the_oracle_does(Kind::Log).await;
}

#[tokio::test]
async fn sled_answers_as_the_oracle_does() {
    a_local_store_answers_as_the_oracle_does(Kind::Sled).await;
}

async fn a_local_store_answers_as_the_oracle_does(kind: Kind) {
    for seed in 0..12 {
        let mut pair = Pair::new(Backend::on(kind), seed).await;
        for step in 0..STEPS {
            let context = format!("seed {seed} step {step}");
            match pair.random.random_range(0..100) {
                0..60 => pair.txn(&context).await,
                60..80 => pair.range(&context).await,
                80..92 => pair.watch(&context).await,
                92..94 => pair.compact(&context).await,
                94 => pair.snapshot(&context).await,
                95..98 => pair.lease_change(&context).await,
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
        // etcd takes 0 for now.
        let floor = self.oracle.compacted().0.saturating_sub(2).max(u64::from(self.is_etcd()));
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
        let range = if self.random.random_bool(0.7) { KeyRange::key(self.key()) } else { self.key_range() };
        let relations = [Relation::Equal, Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
        let relation = relations[self.random.random_range(0..relations.len())];
        let target = match self.random.random_range(0..6) {
            0 => Target::ModRevision(Revision(0)),
            1 => Target::ModRevision(self.revision()),
            2 => Target::CreateRevision(self.revision()),
            3 => Target::Version(self.random.random_range(0..3)),
            4 => Target::Lease(self.lease()),
            _ => Target::Value(if self.random.random() { Bytes::new() } else { self.value() }),
        };
        Compare { range, relation, target }
    }

    /// One of few leases, or none.
    fn lease(&mut self) -> LeaseId {
        LeaseId(self.random.random_range(0..5))
    }

    fn put(&mut self) -> Put {
        Put {
            key: self.key(),
            value: if self.random.random_bool(0.95) { Some(self.value()) } else { None },
            lease: match self.random.random_range(0..10) {
                0 => None,
                // etcd 3.4 ends when a lease in a transaction does not exist.
                1..3 if !self.is_etcd() => Some(self.lease()),
                _ => Some(LeaseId::NONE),
            },
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<Op> {
        let count = self.random.random_range(0..4);
        let mut op = || match self.random.random_range(0..12) {
            0..6 => Op::Put(self.put()),
            6..8 => Op::Delete(KeyRange::key(self.key())),
            8 => Op::Delete(self.key_range()),
            9 if depth < 3 => Op::Txn(self.new_txn(depth + 1)),
            _ => Op::Range(self.request()),
        };
        (0..count).map(|_| op()).collect()
    }

    fn new_txn(&mut self, depth: usize) -> Txn {
        let compare = (0..self.random.random_range(0..2)).map(|_| self.compare()).collect();
        Txn { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    async fn txn(&mut self, context: &str) {
        // Several at once, so that they share a barrier. A cluster would run them in an order of its own.
        let count = if self.is_etcd() { 1 } else { self.random.random_range(1..5) };
        let txns: Vec<Txn> = (0..count).map(|_| self.new_txn(0)).collect();
        let tested = futures::future::join_all(txns.iter().map(|txn| self.tested.txn(txn.clone()))).await;
        for (txn, tested) in txns.into_iter().zip(tested) {
            if self.is_etcd() && matches!(tested, Err(Error::Invalid(_))) {
                // Old versions of etcd refuse keys in both branches of an inner transaction.
                continue;
            }
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
        // Old versions of etcd forget deletions in the compacted revision itself.
        let least = if self.is_etcd() { self.oracle.compacted().0 + 1 } else { 0 };
        let tested = events(&*self.tested, range.clone(), from, least).await;
        let oracle = events(&*self.oracle, range.clone(), from, least).await;
        assert_eq!(tested, oracle, "{context}: {range:?} from {from:?}");
    }

    async fn compact(&mut self, context: &str) {
        let revision = self.revision();
        let (tested, oracle) = (self.tested.compact(revision).await, self.oracle.compact(revision).await);
        assert_eq!(format!("{tested:?}"), format!("{oracle:?}"), "{context}: compact {revision}");
    }

    async fn lease_change(&mut self, context: &str) {
        let id = self.lease();
        let answers = match self.random.random_range(0..5) {
            0..3 => {
                let (tested, oracle) =
                    (self.tested.lease_grant(id, 3600).await, self.oracle.lease_grant(id, 3600).await);
                (format!("{tested:?}"), format!("{oracle:?}"))
            }
            3 => {
                let (tested, oracle) = (self.tested.lease_revoke(id).await, self.oracle.lease_revoke(id).await);
                (format!("{tested:?}"), format!("{oracle:?}"))
            }
            _ => {
                let (tested, oracle) = (self.tested.lease_renew(id).await, self.oracle.lease_renew(id).await);
                (format!("{tested:?}"), format!("{oracle:?}"))
            }
        };
        assert_eq!(answers.0, answers.1, "{context}: lease {id}");
        for id in (1..5).map(LeaseId) {
            let keys = |answer: Result<(_, Vec<Bytes>), Error>| answer.map(|(_, keys)| keys).map_err(|e| e.to_string());
            let (tested, oracle) = (self.tested.lease(id, true).await, self.oracle.lease(id, true).await);
            assert_eq!(keys(tested), keys(oracle), "{context}: keys of lease {id}");
        }
    }

    async fn snapshot(&mut self, context: &str) {
        let (mut tested, mut oracle) =
            (self.tested.snapshot().await.expect("is taken"), self.oracle.snapshot().await.expect("is taken"));
        let (tested, oracle) =
            (super::snapshots::writes(&mut *tested).await, super::snapshots::writes(&mut *oracle).await);
        assert_eq!(tested, oracle, "{context}: snapshot");
    }

    async fn reopen(&mut self) {
        if self.random.random() {
            self.tested.close().await.expect("closes");
        }
        self.tested = Memory::open();
        self.tested = self.backend.reopen().await;
    }
}

/// All events from a revision, but for what the contract leaves open: the state before the compacted revision.
async fn events(store: &dyn Store, range: KeyRange, from: Option<Revision>, least: u64) -> Result<Vec<String>, String> {
    let compacted = store.compacted();
    let mut watch = store.watch(range, from).await.map_err(|e| e.to_string())?;
    let events = drain(&mut *watch).await.map_err(|e| e.to_string())?;
    let without = |event: &Event| Event { previous: None, ..event.clone() };
    let show = |event: &Arc<Event>| {
        if event.kv.mod_revision <= compacted { show_event(&without(event)) } else { show_event(event) }
    };
    Ok(events.iter().filter(|event| event.kv.mod_revision.0 >= least).map(show).collect())
}
