//! Forgets old revisions from time to time: enough history stays for list continuations and for watches that come back.

use super::{Error, Revision, Store};
use crate::task;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How much history to keep. Whatever exceeds a limit goes, the youngest history last.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What is older than this goes (as upstream's `--etcd-compaction-interval`, five minutes).
    pub keep: Duration,
    /// Most revisions.
    pub revisions: u64,
    /// Most bytes of history; above it half of the revisions go.
    pub bytes: u64,
    /// How often to look. Also how often unused memory is given back.
    pub interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            keep: Duration::from_secs(300),
            revisions: 100_000,
            bytes: 64 << 20,
            interval: Duration::from_secs(60),
        }
    }
}

/// Revisions that are not worth a compaction of their own: an idle server writes some dozens in five minutes.
const WORTHWHILE_REVISIONS: u64 = 100;

/// Compact the store by a policy until the group ends.
pub fn start(group: &task::Group, store: Arc<dyn Store>, policy: Policy) {
    group.spawn("store-compactor", run(store, policy));
}

async fn run(store: Arc<dyn Store>, policy: Policy) {
    let mut samples = Samples::default();
    let mut ticks = tokio::time::interval(policy.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let trimmed = store.clone();
        if let Err(error) = task::Group::blocking(move || trimmed.trim()).await {
            warn!(%error, "trimming the store failed");
        }
        samples.add(Instant::now(), store.revision());
        let state = State {
            now: Instant::now(),
            revision: store.revision(),
            compacted: store.compacted(),
            bytes: store.history_bytes(),
        };
        let Some(target) = target(&policy, &mut samples, &state) else { continue };
        match store.compact(target).await {
            Ok(()) => debug!(revision = target.0, "compacted"),
            Err(Error::Closed) => return,
            Err(error) => warn!(%error, "compaction failed; it is tried again"),
        }
    }
}

/// Which revision the store was at when, oldest first.
#[derive(Default)]
struct Samples(VecDeque<(Instant, Revision)>);

impl Samples {
    fn add(&mut self, at: Instant, revision: Revision) {
        self.0.push_back((at, revision));
    }

    /// The newest revision that is at least so old; older samples are dropped.
    fn older_than(&mut self, now: Instant, age: Duration) -> Option<Revision> {
        let old = |sample: &(Instant, Revision)| now.saturating_duration_since(sample.0) >= age;
        while self.0.get(1).is_some_and(old) {
            self.0.pop_front();
        }
        self.0.front().filter(|sample| old(sample)).map(|sample| sample.1)
    }
}

struct State {
    now: Instant,
    revision: Revision,
    compacted: Revision,
    bytes: u64,
}

/// Up to which revision to compact now.
fn target(policy: &Policy, samples: &mut Samples, state: &State) -> Option<Revision> {
    let compacted = state.compacted.0;
    let behind = state.revision.0.saturating_sub(compacted);
    let by_age = samples.older_than(state.now, policy.keep).map_or(0, |revision| revision.0);
    let by_count = state.revision.0.saturating_sub(policy.revisions);
    let by_bytes = if state.bytes > policy.bytes { compacted + behind.div_ceil(2) } else { 0 };
    let target = by_age.max(by_count).max(by_bytes);
    let worthwhile = target >= compacted + WORTHWHILE_REVISIONS || (by_bytes > 0 && target > compacted);
    worthwhile.then_some(Revision(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::{Op, Txn};

    #[test]
    fn history_goes_by_age_count_and_bytes() {
        let start = Instant::now();
        let policy = Policy { revisions: 10_000, bytes: 1_000, ..Policy::default() };
        // Revision 1000 at the start, 1000 more each minute.
        let cases = [
            // minutes, revision, compacted, bytes, target
            (0, 1_000, 1, 0, None),
            (4, 5_000, 1, 0, None),
            (5, 6_000, 1, 0, Some(1_000)),
            (7, 8_000, 1_000, 0, Some(3_000)),
            (7, 8_000, 2_950, 0, None),
            (7, 30_000, 1_000, 0, Some(20_000)),
            (7, 8_000, 2_950, 1_001, Some(5_475)),
            (7, 2_951, 2_950, 1_001, Some(2_951)),
        ];
        for (minutes, revision, compacted, bytes, wanted) in cases {
            let mut samples = Samples::default();
            for minute in 0..=minutes {
                let revision = (1_000 + 1_000 * minute).min(revision);
                samples.add(start + Duration::from_secs(60 * minute), Revision(revision));
            }
            let state = State {
                now: start + Duration::from_secs(60 * minutes),
                revision: Revision(revision),
                compacted: Revision(compacted),
                bytes,
            };
            let case = format!("{minutes} min at {revision}, compacted {compacted}, {bytes} bytes");
            assert_eq!(target(&policy, &mut samples, &state), wanted.map(Revision), "{case}");
            assert!(samples.0.len() <= 7);
        }
    }

    #[tokio::test]
    async fn a_running_compactor_follows_the_store() {
        let store = Memory::open();
        let group = task::Group::root();
        let policy = Policy { keep: Duration::ZERO, interval: Duration::from_millis(1), ..Policy::default() };
        start(&group, store.clone(), policy);
        for round in 1..=3 {
            for _ in 0..WORTHWHILE_REVISIONS {
                let put = Op::put("/a", "x");
                store.txn(Txn { success: vec![put], ..Txn::default() }).await.expect("writes");
            }
            while store.compacted().0 < round * WORTHWHILE_REVISIONS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        group.join(Duration::from_secs(1)).await.expect("ends");
    }
}
