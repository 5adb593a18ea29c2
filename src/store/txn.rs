//! What every backend checks and decides about a transaction, free of storage.

use super::{Compare, Error, KeyRange, KeyValue, Op, RangeRequest, Revision, Txn};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Longest key. Kubernetes' longest are under 600 bytes (253 for each of group, namespace, name).
pub const MAX_KEY_BYTES: usize = 2048;

/// Most bytes (keys and values) that one branch of a transaction may write. The API server takes bodies up to 3 MiB,
/// as upstream does; larger ones are [`Error::Invalid`].
pub const MAX_TXN_BYTES: usize = 8 << 20;

/// Most steps in one branch of a transaction (etcd's `--max-txn-ops`, raised: one process).
pub const MAX_TXN_OPS: usize = 1024;

/// Whether the transaction is well formed. What fails here never reaches a backend.
pub(super) fn check(txn: &Txn) -> Result<(), Error> {
    for compare in &txn.compare {
        check_key(compare.key())?;
    }
    check_branch(&txn.success)?;
    check_branch(&txn.failure)
}

fn check_branch(ops: &[Op]) -> Result<(), Error> {
    if ops.len() > MAX_TXN_OPS {
        return Err(Error::Invalid(format!("{} operations, at most {MAX_TXN_OPS} are allowed", ops.len())));
    }
    let mut puts: BTreeSet<&[u8]> = BTreeSet::new();
    let mut bytes = 0;
    for op in ops {
        match op {
            Op::Put { key, value } => {
                check_key(key)?;
                bytes += key.len() + value.len();
                if !puts.insert(key) {
                    return Err(Error::Invalid(format!("duplicate key {}", key.escape_ascii())));
                }
            }
            Op::Delete(range) => check_range(range)?,
            Op::Range(request) => check_range(&request.range)?,
        }
    }
    if bytes > MAX_TXN_BYTES {
        return Err(Error::Invalid(format!("{bytes} bytes, at most {MAX_TXN_BYTES} are allowed")));
    }
    let deletes = ops.iter().filter_map(|op| if let Op::Delete(range) = op { Some(range) } else { None });
    for range in deletes.filter(|range| !range.is_empty()) {
        if let Some(key) = puts.range::<[u8], _>(range.bounds()).next() {
            return Err(Error::Invalid(format!("key {} is both put and deleted", key.escape_ascii())));
        }
    }
    Ok(())
}

fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::Invalid("empty key".into())),
        1..=MAX_KEY_BYTES => Ok(()),
        long => Err(Error::Invalid(format!("key of {long} bytes, at most {MAX_KEY_BYTES} are allowed"))),
    }
}

fn check_range(range: &KeyRange) -> Result<(), Error> {
    if range.is_single() { check_key(&range.start) } else { Ok(()) }
}

/// Whether a read at `request.revision` can be answered by a store that is at `current` and compacted at `compacted`.
pub(super) fn check_revision(request: &RangeRequest, current: Revision, compacted: Revision) -> Result<(), Error> {
    match request.revision {
        Some(revision) if revision > current => Err(Error::Future(current)),
        Some(revision) if revision < compacted => Err(Error::Compacted(compacted)),
        _ => Ok(()),
    }
}

impl Compare {
    pub fn key(&self) -> &Bytes {
        match self {
            Compare::ModRevision(key, _)
            | Compare::CreateRevision(key, _)
            | Compare::Version(key, _)
            | Compare::Value(key, _) => key,
        }
    }

    /// Whether the condition holds for the key's current state. The value of a key that does not exist equals
    /// nothing, its counters are 0.
    pub(super) fn holds(&self, current: Option<&KeyValue>) -> bool {
        match self {
            Compare::ModRevision(_, want) => current.map_or(Revision(0), |kv| kv.mod_revision) == *want,
            Compare::CreateRevision(_, want) => current.map_or(Revision(0), |kv| kv.create_revision) == *want,
            Compare::Version(_, want) => current.map_or(0, |kv| kv.version) == *want,
            Compare::Value(_, want) => current.is_some_and(|kv| kv.value == *want),
        }
    }
}
