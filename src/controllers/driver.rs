//! What runs every controller: wake-ups to keys, a queue, bounded concurrency, retries, a slow full pass.
//!
//! Knows no kind and no controller. One task per controller; its reconciles run concurrently inside that task.

use super::queue::Queue;
use crate::cache::{Cache, Cached, Change, Key, Notice};
use crate::task::Group;
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt, select_all};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Every key of the primary kinds is looked at again this often, whatever happened: repairs what was missed.
const FULL_PASS: Duration = Duration::from_secs(600);
/// Failures in a row are logged as warnings from this pause on; shorter ones are ordinary races.
const LOUD_PAUSE: Duration = Duration::from_millis(300);

/// What a reconcile asks for when it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Nothing more until something changes.
    Done,
    /// Look again after this time, if nothing changes before.
    After(Duration),
}

/// Level-triggered: `reconcile` gets a key, reads caches, brings the world closer to what is wanted.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Upstream's name, also the identity of its requests: `deployment-controller`.
    fn name(&self) -> &'static str;

    /// Say what wakes which keys, once, at start.
    fn wakes(&self, wakes: &mut Wakes);

    /// Bring one key to order. An error is retried with growing pauses; never retry inside.
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue>;

    /// How many keys may be worked on at a time.
    fn workers(&self) -> usize {
        5
    }
}

/// What wakes a controller.
#[derive(Default)]
pub struct Wakes {
    sources: Vec<BoxFuture<'static, BoxStream<'static, Vec<Key>>>>,
    waits: Vec<BoxFuture<'static, ()>>,
    everything: Vec<Box<dyn Fn() -> Vec<Key> + Send + Sync>>,
}

impl Wakes {
    /// Changes of `cache` wake their own keys, and each full pass looks at all of them.
    pub fn primary<K: Cached>(&mut self, cache: &Cache<K>) {
        self.on(cache, |change| vec![change.key.clone()]);
        let all = cache.clone();
        self.everything.push(Box::new(move || all.list().iter().map(|object| Key::of(object.as_ref())).collect()));
    }

    /// Changes of `cache` wake the keys that `map` names.
    pub fn on<K: Cached>(&mut self, cache: &Cache<K>, map: impl Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static) {
        self.reads(cache);
        let cache = cache.clone();
        let source = async move {
            let changes = cache.subscribe();
            cache.synced().await;
            let first = whole(&cache, &map);
            let rest = futures::stream::unfold((changes, cache, map), |(mut changes, cache, map)| async move {
                let keys = match changes.next().await? {
                    Notice::Change(change) => map(&change),
                    Notice::Resync => whole(&cache, &map),
                };
                Some((keys, (changes, cache, map)))
            });
            futures::stream::iter([first]).chain(rest).boxed()
        };
        self.sources.push(source.boxed());
    }

    /// Wake keys from anything else.
    pub fn stream(&mut self, keys: BoxStream<'static, Vec<Key>>) {
        self.sources.push(async move { keys }.boxed());
    }

    /// `reconcile` reads `cache`: it starts when that is complete.
    pub fn reads<K: Cached>(&mut self, cache: &Cache<K>) {
        let cache = cache.clone();
        self.waits.push(async move { cache.synced().await }.boxed());
    }
}

/// The keys of everything a cache holds.
fn whole<K: Cached>(cache: &Cache<K>, map: &(impl Fn(&Change<K>) -> Vec<Key> + Send + Sync)) -> Vec<Key> {
    let added = |object: Arc<K>| Change { key: Key::of(object.as_ref()), old: None, new: Some(object) };
    cache.list().into_iter().flat_map(|object| map(&added(object))).collect()
}

/// Counters of one controller, with upstream's metric names.
#[derive(Default)]
pub struct Counters {
    pub adds: AtomicU64,
    pub depth: AtomicU64,
    pub retries: AtomicU64,
    pub reconciles: AtomicU64,
    pub errors: AtomicU64,
    pub work_micros: AtomicU64,
}

/// Start a controller's task in `group`.
pub fn start(controller: Box<dyn Controller>, counters: Arc<Counters>, group: &Group) {
    group.spawn(controller.name(), run(Arc::from(controller), counters));
}

type Finished = (Key, anyhow::Result<Requeue>);

async fn run(controller: Arc<dyn Controller>, counters: Arc<Counters>) {
    let mut wakes = Wakes::default();
    controller.wakes(&mut wakes);
    let Wakes { sources, waits, everything } = wakes;
    let (sources, _) = futures::join!(futures::future::join_all(sources), futures::future::join_all(waits));
    let mut woken = select_all(sources);
    let mut queue = Queue::default();
    let mut running: FuturesUnordered<BoxFuture<'static, Finished>> = FuturesUnordered::new();
    let mut full_pass = tokio::time::interval_at(Instant::now() + FULL_PASS, FULL_PASS);
    full_pass.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        while running.len() < controller.workers() {
            let Some(key) = queue.pop(Instant::now()) else { break };
            running.push(work(controller.clone(), counters.clone(), key).boxed());
        }
        counters.depth.store(queue.depth() as u64, Ordering::Relaxed);
        let due = queue.next_due();
        tokio::select! {
            keys = woken.next() => match keys {
                Some(keys) => {
                    counters.adds.fetch_add(keys.len() as u64, Ordering::Relaxed);
                    keys.into_iter().for_each(|key| queue.add(key));
                }
                None => return,
            },
            Some((key, outcome)) = running.next() => settle(controller.name(), &mut queue, &counters, key, outcome),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && running.len() < controller.workers() => {}
            _ = full_pass.tick() => everything.iter().flat_map(|all| all()).for_each(|key| queue.add(key)),
        }
    }
}

/// One reconcile; a panic in it is an error of this key alone.
async fn work(controller: Arc<dyn Controller>, counters: Arc<Counters>, key: Key) -> Finished {
    let started = Instant::now();
    let outcome = AssertUnwindSafe(controller.reconcile(&key)).catch_unwind().await;
    counters.reconciles.fetch_add(1, Ordering::Relaxed);
    counters.work_micros.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
    (key, outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("reconcile panicked"))))
}

fn settle(name: &str, queue: &mut Queue, counters: &Counters, key: Key, outcome: anyhow::Result<Requeue>) {
    match outcome {
        Ok(Requeue::Done) => queue.done(&key),
        Ok(Requeue::After(pause)) => {
            queue.done(&key);
            queue.add_at(key, Instant::now() + pause);
        }
        Err(error) => {
            let pause = queue.failed(&key, Instant::now());
            counters.retries.fetch_add(1, Ordering::Relaxed);
            counters.errors.fetch_add(1, Ordering::Relaxed);
            if pause >= LOUD_PAUSE {
                warn!(controller = name, %key, ?pause, error = format!("{error:#}"), "reconcile failed");
            } else {
                debug!(controller = name, %key, ?pause, error = format!("{error:#}"), "reconcile failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use parking_lot::Mutex;

    struct Probe {
        cache: Cache<ConfigMap>,
        seen: Arc<Mutex<Vec<String>>>,
    }

    #[async_trait]
    impl Controller for Probe {
        fn name(&self) -> &'static str {
            "probe"
        }
        fn wakes(&self, wakes: &mut Wakes) {
            wakes.primary(&self.cache);
        }
        async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
            self.seen.lock().push(key.name.clone());
            match (key.name.as_str(), self.seen.lock().iter().filter(|n| **n == key.name).count()) {
                ("fails", 1) => anyhow::bail!("first time"),
                ("panics", 1) => panic!("first time"),
                ("again", 1) => Ok(Requeue::After(Duration::from_secs(3600))),
                _ => Ok(Requeue::Done),
            }
        }
    }

    #[tokio::test]
    async fn failures_panics_and_requeues_come_back() {
        let named = |name: &str| ConfigMap {
            metadata: ObjectMeta { name: Some(name.into()), ..Default::default() },
            ..Default::default()
        };
        let cache = Cache::fixed(["again", "fails", "once", "panics"].map(named));
        let (seen, counters, group) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Counters>::default(), Group::root());
        start(Box::new(Probe { cache, seen: Arc::clone(&seen) }), counters.clone(), &group);
        while seen.lock().len() < 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut first = seen.lock().clone();
        first.sort();
        assert_eq!(first, ["again", "fails", "fails", "once", "panics", "panics"]);
        assert_eq!(counters.errors.load(Ordering::Relaxed), 2);
        group.cancel();
    }
}
