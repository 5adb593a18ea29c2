//! A workload on the store whose outcome can be checked after any kind of crash.
#![allow(dead_code, reason = "each test binary uses its part")]

use kedge::store::local::engine::Kind;
use kedge::store::local::{Local, Options};
use kedge::store::{Error, KeyRange, Op, RangeRequest, Revision, Store, Txn};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What was acknowledged last per key: the step and its revision.
pub type Acknowledged = BTreeMap<String, (u64, u64)>;

/// The engine that a child process is to use.
pub const ENGINE: &str = "KEDGE_STORE_ENGINE";

/// Of this process: what [`ENGINE`] says, or the default one.
pub fn engine() -> Kind {
    std::env::var(ENGINE).map_or_else(|_| Kind::default(), |name| name.parse().expect("an engine"))
}

/// With what is there, or new with the engine of this process.
pub fn open(directory: &Path) -> Arc<dyn Store> {
    try_open(directory).expect("opens")
}

pub fn open_with(directory: &Path, engine: Kind) -> Arc<dyn Store> {
    Local::open(directory.join("store"), Options { engine: Some(engine), ..Options::default() }).expect("opens")
}

pub fn try_open(directory: &Path) -> Result<Arc<dyn Store>, Error> {
    let there = Kind::ALL.into_iter().any(|kind| directory.join("store").join(kind.name()).exists());
    let engine = (!there).then(engine);
    Local::open(directory.join("store"), Options { engine, ..Options::default() })
}

/// A store whose keys below `/v/` are in the memory tier.
pub fn open_volatile(directory: &Path) -> Arc<dyn Store> {
    let options = Options { volatile: vec!["/v/".into()], ..Options::default() };
    Local::open(directory.join("store"), options).expect("opens")
}

/// A value that can be checked: its step, then noise of a length that depends on it.
pub fn value(step: u64) -> Vec<u8> {
    let len = [20, 700, 3_000, 9_000, 60_000][(step % 5) as usize];
    let mut state = step;
    let mut bytes = step.to_be_bytes().to_vec();
    bytes.resize_with(len, || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    });
    bytes
}

/// One of several writers. Each owns some keys and writes them in turn, two keys in one transaction, now and then deleting
/// one, while the store is compacted; `acknowledged` hears of key, step and revision.
pub async fn write(store: &dyn Store, writer: u64, steps: std::ops::Range<u64>, acknowledged: impl Fn(&str, u64, u64)) {
    for step in steps {
        let key = format!("/{writer}/{}", step % 20);
        let first = Op::put(key.clone(), value(step));
        let second = match step % 7 {
            0 => Op::Delete(KeyRange::key(format!("{key}/twin"))),
            _ => Op::put(format!("{key}/twin"), value(step)),
        };
        let txn = Txn { success: vec![first, second], ..Txn::default() };
        let response = store.txn(txn).await.expect("writes");
        acknowledged(&key, step, response.revision.0);
        if step % 100 == 0 {
            let compacted = store.compact(Revision(response.revision.0.saturating_sub(50))).await;
            assert!(matches!(compacted, Ok(()) | Err(Error::Compacted(_))), "{compacted:?}");
        }
    }
}

/// Everything acknowledged is there, or something newer of the same writer; transactions are whole.
pub async fn check(directory: &Path, acknowledged: &Acknowledged) {
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
