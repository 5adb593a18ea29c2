//! Service KV: etcd's requests as the store's, and back.

use super::answer::{empty_key, from_error, header, step_header};
use super::refine::Refine;
use crate::store::proto::{self, Request, Response, TargetUnion};
use crate::store::{
    Compare, KeyRange, KeyValue, LeaseId, Op, OpResponse, Put, RangeRequest, RangeResponse, Relation, Revision, Store,
    Target, Txn, TxnResponse,
};
use bytes::Bytes;
use tonic::Status;

type Result<T> = std::result::Result<T, Status>;

pub async fn range(store: &dyn Store, request: proto::RangeRequest) -> Result<proto::RangeResponse> {
    let refine = Refine::of(&request)?;
    let mut found = store.range(range_request(&request, refine.as_ref())?).await.map_err(from_error)?;
    if let Some(refine) = refine {
        refine.apply(&mut found);
    }
    Ok(range_response(found))
}

pub async fn put(store: &dyn Store, request: proto::PutRequest) -> Result<proto::PutResponse> {
    let with_previous = request.prev_kv;
    let done = single(store, Op::Put(put_of(request)?)).await?;
    let revision = done.revision;
    match done.responses.into_iter().next() {
        Some(OpResponse::Put { previous }) => Ok(put_response(revision, previous, with_previous)),
        _ => Err(mismatch()),
    }
}

pub async fn delete_range(store: &dyn Store, request: proto::DeleteRangeRequest) -> Result<proto::DeleteRangeResponse> {
    let with_previous = request.prev_kv;
    let done = single(store, Op::Delete(key_range(request.key, request.range_end)?)).await?;
    let revision = done.revision;
    match done.responses.into_iter().next() {
        Some(OpResponse::Delete { previous }) => Ok(delete_response(revision, previous, with_previous)),
        _ => Err(mismatch()),
    }
}

pub async fn txn(store: &dyn Store, request: proto::TxnRequest) -> Result<proto::TxnResponse> {
    let txn = txn_of(&request)?;
    let done = store.txn(txn).await.map_err(from_error)?;
    let header = header(done.revision);
    Ok(proto::TxnResponse { header, ..txn_response(&request, done)? })
}

pub async fn compact(store: &dyn Store, request: proto::CompactionRequest) -> Result<proto::HeaderOnly> {
    store.compact(Revision(u64::try_from(request.revision).unwrap_or(0))).await.map_err(from_error)?;
    if request.physical {
        store.defragment().await.map_err(from_error)?;
    }
    Ok(proto::HeaderOnly { header: header(store.revision()) })
}

async fn single(store: &dyn Store, op: Op) -> Result<TxnResponse> {
    store.txn(Txn { success: vec![op], ..Txn::default() }).await.map_err(from_error)
}

/// The store has answered something else than it was asked.
fn mismatch() -> Status {
    Status::internal("etcdserver: the store's answer does not fit the request")
}

pub fn key_range(start: Bytes, end: Bytes) -> Result<KeyRange> {
    if start.is_empty() { Err(empty_key()) } else { Ok(KeyRange { start, end }) }
}

pub fn range_request(request: &proto::RangeRequest, refine: Option<&Refine>) -> Result<RangeRequest> {
    let limit = usize::try_from(request.limit).unwrap_or(0);
    Ok(RangeRequest {
        range: key_range(request.key.clone(), request.range_end.clone())?,
        revision: u64::try_from(request.revision).ok().filter(|revision| *revision > 0).map(Revision),
        limit: if refine.is_some() { 0 } else { limit },
        keys_only: request.keys_only && !refine.is_some_and(Refine::needs_values),
        count_only: request.count_only,
    })
}

fn put_of(request: proto::PutRequest) -> Result<Put> {
    if request.key.is_empty() {
        return Err(empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Status::invalid_argument("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Status::invalid_argument("etcdserver: lease is provided"));
    }
    Ok(Put {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease: (!request.ignore_lease).then_some(LeaseId(request.lease)),
    })
}

fn txn_of(request: &proto::TxnRequest) -> Result<Txn> {
    let ops = |ops: &[proto::RequestOp]| ops.iter().map(op_of).collect::<Result<Vec<Op>>>();
    Ok(Txn {
        compare: request.compare.iter().map(compare_of).collect::<Result<_>>()?,
        success: ops(&request.success)?,
        failure: ops(&request.failure)?,
    })
}

fn op_of(op: &proto::RequestOp) -> Result<Op> {
    match &op.request {
        Some(Request::Range(range)) => Ok(Op::Range(range_request(range, Refine::of(range)?.as_ref())?)),
        Some(Request::Put(put)) => Ok(Op::Put(put_of(put.clone())?)),
        Some(Request::DeleteRange(delete)) => Ok(Op::Delete(key_range(delete.key.clone(), delete.range_end.clone())?)),
        Some(Request::Txn(nested)) => Ok(Op::Txn(txn_of(nested)?)),
        // As etcd says it.
        None => Err(Status::invalid_argument("etcdserver: key not found")),
    }
}

fn compare_of(compare: &proto::Compare) -> Result<Compare> {
    let range = key_range(compare.key.clone(), compare.range_end.clone())?;
    let invalid = |_| Status::invalid_argument("etcdserver: invalid comparison");
    let relation = match proto::CompareResult::try_from(compare.result).map_err(invalid)? {
        proto::CompareResult::Equal => Relation::Equal,
        proto::CompareResult::NotEqual => Relation::NotEqual,
        proto::CompareResult::Greater => Relation::Greater,
        proto::CompareResult::Less => Relation::Less,
    };
    let union = compare.target_union.as_ref();
    // What does not fit the target counts as not given, that is 0.
    let (relation, target) = match proto::CompareTarget::try_from(compare.target).map_err(invalid)? {
        proto::CompareTarget::Version => {
            let given = if let Some(TargetUnion::Version(given)) = union { *given } else { 0 };
            counter(relation, given, Target::Version)
        }
        proto::CompareTarget::Create => {
            let given = if let Some(TargetUnion::CreateRevision(given)) = union { *given } else { 0 };
            counter(relation, given, |given| Target::CreateRevision(Revision(given)))
        }
        proto::CompareTarget::Mod => {
            let given = if let Some(TargetUnion::ModRevision(given)) = union { *given } else { 0 };
            counter(relation, given, |given| Target::ModRevision(Revision(given)))
        }
        proto::CompareTarget::Lease => {
            let given = if let Some(TargetUnion::Lease(given)) = union { *given } else { 0 };
            (relation, Target::Lease(LeaseId(given)))
        }
        proto::CompareTarget::Value => {
            let given = if let Some(TargetUnion::Value(given)) = union { given.clone() } else { Bytes::new() };
            (relation, Target::Value(given))
        }
    };
    Ok(Compare { range, relation, target })
}

/// Counters are never negative: every counter is greater than a negative number, and none reaches the greatest one.
fn counter(relation: Relation, given: i64, target: impl Fn(u64) -> Target) -> (Relation, Target) {
    match (u64::try_from(given), relation) {
        (Ok(given), relation) => (relation, target(given)),
        (Err(_), Relation::Equal | Relation::Less) => (Relation::Equal, target(u64::MAX)),
        (Err(_), Relation::NotEqual | Relation::Greater) => (Relation::NotEqual, target(u64::MAX)),
    }
}

fn range_response(found: RangeResponse) -> proto::RangeResponse {
    proto::RangeResponse {
        header: header(found.revision),
        count: i64::try_from(found.count).unwrap_or(i64::MAX),
        more: found.more,
        kvs: found.kvs.into_iter().map(key_value).collect(),
    }
}

fn put_response(revision: Revision, previous: Option<KeyValue>, with_previous: bool) -> proto::PutResponse {
    proto::PutResponse { header: header(revision), prev_kv: previous.filter(|_| with_previous).map(key_value) }
}

fn delete_response(revision: Revision, previous: Vec<KeyValue>, with_previous: bool) -> proto::DeleteRangeResponse {
    proto::DeleteRangeResponse {
        header: header(revision),
        deleted: previous.len() as i64,
        prev_kvs: if with_previous { previous.into_iter().map(key_value).collect() } else { Vec::new() },
    }
}

/// The header is that of a transaction in another one, which is empty.
fn txn_response(request: &proto::TxnRequest, done: TxnResponse) -> Result<proto::TxnResponse> {
    let asked = if done.succeeded { &request.success } else { &request.failure };
    let revision = done.revision;
    let answer = |(asked, response): (&proto::RequestOp, OpResponse)| {
        let response = match (&asked.request, response) {
            (Some(Request::Range(range)), OpResponse::Range(mut found)) => {
                if let Some(refine) = Refine::of(range)? {
                    refine.apply(&mut found);
                }
                let header = step_header(found.revision);
                Response::Range(proto::RangeResponse { header, ..range_response(found) })
            }
            (Some(Request::Put(put)), OpResponse::Put { previous }) => {
                let response = put_response(revision, previous, put.prev_kv);
                Response::Put(proto::PutResponse { header: step_header(revision), ..response })
            }
            (Some(Request::DeleteRange(delete)), OpResponse::Delete { previous }) => {
                let response = delete_response(revision, previous, delete.prev_kv);
                Response::DeleteRange(proto::DeleteRangeResponse { header: step_header(revision), ..response })
            }
            (Some(Request::Txn(nested)), OpResponse::Txn(done)) => Response::Txn(txn_response(nested, done)?),
            _ => return Err(mismatch()),
        };
        Ok(proto::ResponseOp { response: Some(response) })
    };
    let responses = asked.iter().zip(done.responses).map(answer).collect::<Result<_>>()?;
    Ok(proto::TxnResponse { header: Some(proto::ResponseHeader::default()), succeeded: done.succeeded, responses })
}

pub fn key_value(kv: KeyValue) -> proto::KeyValue {
    proto::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0 as i64,
        mod_revision: kv.mod_revision.0 as i64,
        version: kv.version as i64,
        value: kv.value,
        lease: kv.lease.0,
    }
}
