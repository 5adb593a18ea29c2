//! What every backend checks and decides about a transaction, free of storage.

use super::{
    Compare, Error, Invalid, KeyRange, KeyValue, LeaseId, Op, OpResponse, Put, RangeRequest, RangeResponse, Relation,
    Revision, Target, Txn, TxnResponse,
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Longest key. Kubernetes' longest are under 600 bytes (253 for each of group, namespace, name).
pub const MAX_KEY_BYTES: usize = 2048;

/// Most bytes (keys and values) that a transaction may write. The API server takes bodies up to 3 MiB, as upstream does;
/// larger ones are [`Error::Invalid`].
pub const MAX_TXN_BYTES: usize = 8 << 20;

/// Most steps in one branch of a transaction (etcd's `--max-txn-ops`, raised: one process).
pub const MAX_TXN_OPS: usize = 1024;

/// How deep transactions may be nested (etcd has no limit but its request size).
pub const MAX_TXN_DEPTH: usize = 16;

/// Whether the transaction is well formed. What fails here never reaches a backend.
pub(super) fn check(txn: &Txn) -> Result<(), Error> {
    let mut bytes = 0;
    Keys::of_txn(txn, 0, &mut bytes).map_err(Error::Invalid)?;
    match bytes {
        0..=MAX_TXN_BYTES => Ok(()),
        large => Err(Error::Invalid(Invalid::TooLarge(large))),
    }
}

/// Whether the transaction may put something, in either branch.
pub(super) fn puts(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(nested) => puts(nested),
        Op::Delete(_) | Op::Range(_) => false,
    })
}

/// What a part of a transaction may write.
#[derive(Default)]
struct Keys<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Keys<'a> {
    /// Both branches: only one of them runs, so they may write the same keys.
    fn of_txn(txn: &'a Txn, depth: usize, bytes: &mut usize) -> Result<Self, Invalid> {
        if depth > MAX_TXN_DEPTH {
            return Err(Invalid::TooDeep);
        }
        if txn.compare.len() > MAX_TXN_OPS {
            return Err(Invalid::TooManyOps(txn.compare.len()));
        }
        for compare in &txn.compare {
            check_range(&compare.range)?;
        }
        let mut either = Keys::of_branch(&txn.success, depth, bytes)?;
        let failure = Keys::of_branch(&txn.failure, depth, bytes)?;
        either.puts.extend(failure.puts);
        either.deletes.extend(failure.deletes);
        Ok(either)
    }

    fn of_branch(ops: &'a [Op], depth: usize, bytes: &mut usize) -> Result<Self, Invalid> {
        if ops.len() > MAX_TXN_OPS {
            return Err(Invalid::TooManyOps(ops.len()));
        }
        let mut all = Keys::default();
        for op in ops {
            let mut one = Keys::default();
            match op {
                Op::Put(put) => {
                    check_key(&put.key)?;
                    *bytes += put.key.len() + put.value.as_ref().map_or(0, Bytes::len);
                    one.puts.insert(&put.key);
                }
                Op::Delete(range) => {
                    check_range(range)?;
                    one.deletes.push(range);
                }
                Op::Range(request) => check_range(&request.range)?,
                Op::Txn(nested) => one = Keys::of_txn(nested, depth + 1, bytes)?,
            }
            all.add(one)?;
        }
        Ok(all)
    }

    /// Add what runs in the same transaction.
    fn add(&mut self, other: Keys<'a>) -> Result<(), Invalid> {
        let twice = other.puts.iter().find(|key| self.puts.contains(*key)).copied();
        let deleted =
            twice.or_else(|| overlap(&self.puts, &other.deletes)).or_else(|| overlap(&other.puts, &self.deletes));
        match deleted {
            Some(key) => Err(Invalid::DuplicateKey(Bytes::copy_from_slice(key))),
            None => {
                self.puts.extend(other.puts);
                self.deletes.extend(other.deletes);
                Ok(())
            }
        }
    }
}

/// A key that is in one of the ranges.
fn overlap<'a>(keys: &BTreeSet<&'a [u8]>, ranges: &[&KeyRange]) -> Option<&'a [u8]> {
    let inside = |range: &&KeyRange| keys.range::<[u8], _>(range.bounds()).next().copied();
    ranges.iter().filter(|range| !range.is_empty()).find_map(inside)
}

fn check_key(key: &[u8]) -> Result<(), Invalid> {
    match key.len() {
        0 => Err(Invalid::EmptyKey),
        1..=MAX_KEY_BYTES => Ok(()),
        long => Err(Invalid::LongKey(long)),
    }
}

fn check_range(range: &KeyRange) -> Result<(), Invalid> {
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

/// Whether a store that is at `current` and compacted at `compacted` can be compacted at `revision`.
pub(super) fn check_compact(revision: Revision, current: Revision, compacted: Revision) -> Result<(), Error> {
    match revision {
        revision if revision > current => Err(Error::Future(current)),
        revision if revision <= compacted => Err(Error::Compacted(compacted)),
        _ => Ok(()),
    }
}

/// A backend's part in a transaction: reads see the transaction's own writes.
pub(super) trait Apply {
    /// The store's revision, that of this transaction once it has written.
    fn revision(&self) -> Revision;
    fn compacted(&self) -> Revision;
    fn has_lease(&self, id: LeaseId) -> bool;
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error>;
    /// Give a key its next state; gives the one before.
    fn put(&mut self, key: &Bytes, change: Change<'_>) -> Result<Option<KeyValue>, Error>;
    /// Delete keys; gives their states before.
    fn delete(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, Error>;
}

/// What a put changes; `None` keeps what the key has.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub value: Option<&'a Bytes>,
    pub lease: Option<LeaseId>,
}

/// Run a checked transaction. Whatever can be wrong with it is found before the first write.
pub(super) fn run(txn: &Txn, backend: &mut impl Apply) -> Result<TxnResponse, Error> {
    let path = Path::of(txn, backend)?;
    path.check(backend)?;
    let mut response = path.apply(backend)?;
    settle(&mut response, backend.revision());
    Ok(response)
}

/// Inner transactions have the revision of the whole.
fn settle(response: &mut TxnResponse, revision: Revision) {
    response.revision = revision;
    for inner in &mut response.responses {
        if let OpResponse::Txn(inner) = inner {
            settle(inner, revision);
        }
    }
}

/// The branches that run, of the transaction and those inside it. All are decided before anything is written.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Put(&'a Put),
    Delete(&'a KeyRange),
    Range(&'a RangeRequest),
    Txn(Path<'a>),
}

impl<'a> Path<'a> {
    fn of(txn: &'a Txn, backend: &impl Apply) -> Result<Self, Error> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && holds(compare, backend)?;
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let step = |op: &'a Op| {
            Ok(match op {
                Op::Put(put) => Step::Put(put),
                Op::Delete(range) => Step::Delete(range),
                Op::Range(request) => Step::Range(request),
                Op::Txn(nested) => Step::Txn(Path::of(nested, backend)?),
            })
        };
        Ok(Path { succeeded, steps: ops.iter().map(step).collect::<Result<_, Error>>()? })
    }

    fn check(&self, backend: &impl Apply) -> Result<(), Error> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Put(put) => check_put(put, backend),
            Step::Delete(_) => Ok(()),
            Step::Range(request) => check_revision(request, backend.revision(), backend.compacted()),
            Step::Txn(path) => path.check(backend),
        })
    }

    fn apply(&self, backend: &mut impl Apply) -> Result<TxnResponse, Error> {
        let mut responses = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            responses.push(match step {
                Step::Put(put) => {
                    let change = Change { value: put.value.as_ref(), lease: put.lease };
                    OpResponse::Put { previous: backend.put(&put.key, change)? }
                }
                Step::Delete(range) => OpResponse::Delete { previous: backend.delete(range)? },
                Step::Range(request) => OpResponse::Range(backend.range(request)?),
                Step::Txn(path) => OpResponse::Txn(path.apply(backend)?),
            });
        }
        Ok(TxnResponse { revision: backend.revision(), succeeded: self.succeeded, responses })
    }
}

fn check_put(put: &Put, backend: &impl Apply) -> Result<(), Error> {
    if put.lease.is_some_and(|id| !id.is_none() && !backend.has_lease(id)) {
        return Err(Error::LeaseNotFound);
    }
    if put.value.is_none() || put.lease.is_none() {
        let there = RangeRequest { count_only: true, ..RangeRequest::of(KeyRange::key(put.key.clone())) };
        if backend.range(&there)?.count == 0 {
            return Err(Error::KeyNotFound);
        }
    }
    Ok(())
}

fn holds(compare: &Compare, backend: &impl Apply) -> Result<bool, Error> {
    let keys_only = !matches!(compare.target, Target::Value(_));
    let found = backend.range(&RangeRequest { keys_only, ..RangeRequest::of(compare.range.clone()) })?;
    Ok(compare.holds(&found.kvs))
}

impl Compare {
    /// Whether the condition holds for the keys that are in its range now.
    fn holds(&self, kvs: &[KeyValue]) -> bool {
        if kvs.is_empty() {
            return self.target.order(None).is_some_and(|order| self.relation.is(order));
        }
        kvs.iter().all(|kv| self.target.order(Some(kv)).is_some_and(|order| self.relation.is(order)))
    }
}

impl Target {
    /// How the state of a key compares with the target; `None` if there is nothing to compare.
    fn order(&self, kv: Option<&KeyValue>) -> Option<std::cmp::Ordering> {
        Some(match self {
            Target::Version(version) => kv.map_or(0, |kv| kv.version).cmp(version),
            Target::CreateRevision(revision) => kv.map_or(Revision(0), |kv| kv.create_revision).cmp(revision),
            Target::ModRevision(revision) => kv.map_or(Revision(0), |kv| kv.mod_revision).cmp(revision),
            Target::Lease(lease) => kv.map_or(LeaseId::NONE, |kv| kv.lease).cmp(lease),
            Target::Value(value) => kv?.value.cmp(value),
        })
    }
}

impl Relation {
    fn is(self, order: std::cmp::Ordering) -> bool {
        match self {
            Relation::Equal => order.is_eq(),
            Relation::NotEqual => order.is_ne(),
            Relation::Greater => order.is_gt(),
            Relation::Less => order.is_lt(),
        }
    }
}
