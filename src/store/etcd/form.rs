//! The store's terms as etcd's messages, and back. The opposite of `face/kv.rs`.

use crate::store::proto::{self, CompareResult, CompareTarget, Request, Response, TargetUnion};
use crate::store::{
    Compare, Error, Event, EventKind, Invalid, KeyRange, KeyValue, LeaseId, Op, OpResponse, Put, RangeRequest,
    RangeResponse, Relation, Revision, Target, Txn, TxnResponse,
};
use bytes::Bytes;

pub fn range(request: &RangeRequest) -> proto::RangeRequest {
    let (key, range_end) = key_range(&request.range);
    proto::RangeRequest {
        key,
        range_end,
        limit: request.limit as i64,
        revision: request.revision.map_or(0, number),
        keys_only: request.keys_only,
        count_only: request.count_only,
        ..Default::default()
    }
}

/// etcd knows no empty key: a range from the very beginning starts at the first key there can be.
pub fn key_range(range: &KeyRange) -> (Bytes, Bytes) {
    let start = if range.start.is_empty() { Bytes::from_static(&[0]) } else { range.start.clone() };
    (start, range.end.clone())
}

pub fn txn(txn: &Txn) -> proto::TxnRequest {
    let ops = |ops: &[Op]| ops.iter().map(op).collect();
    proto::TxnRequest {
        compare: txn.compare.iter().map(compare).collect(),
        success: ops(&txn.success),
        failure: ops(&txn.failure),
    }
}

fn op(op: &Op) -> proto::RequestOp {
    let request = match op {
        Op::Put(one) => Request::Put(put(one)),
        Op::Delete(range) => {
            let (key, range_end) = key_range(range);
            Request::DeleteRange(proto::DeleteRangeRequest { key, range_end, prev_kv: true })
        }
        Op::Range(request) => Request::Range(range(request)),
        Op::Txn(nested) => Request::Txn(txn(nested)),
    };
    proto::RequestOp { request: Some(request) }
}

fn put(put: &Put) -> proto::PutRequest {
    proto::PutRequest {
        key: put.key.clone(),
        value: put.value.clone().unwrap_or_default(),
        lease: put.lease.unwrap_or_default().0,
        prev_kv: true,
        ignore_value: put.value.is_none(),
        ignore_lease: put.lease.is_none(),
    }
}

fn compare(compare: &Compare) -> proto::Compare {
    let (target, union) = match &compare.target {
        Target::Version(version) => (CompareTarget::Version, TargetUnion::Version(*version as i64)),
        Target::CreateRevision(revision) => (CompareTarget::Create, TargetUnion::CreateRevision(number(*revision))),
        Target::ModRevision(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(number(*revision))),
        Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
        Target::Lease(lease) => (CompareTarget::Lease, TargetUnion::Lease(lease.0)),
    };
    let result = match compare.relation {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    let (key, range_end) = key_range(&compare.range);
    proto::Compare { result: result as i32, target: target as i32, key, range_end, target_union: Some(union) }
}

pub fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

pub fn header_revision(header: Option<proto::ResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

/// `revision`: that of the whole answer, for steps of a transaction, whose own headers say less.
pub fn range_response(found: proto::RangeResponse, revision: Revision) -> RangeResponse {
    RangeResponse {
        revision,
        kvs: found.kvs.into_iter().map(key_value).collect(),
        count: usize::try_from(found.count).unwrap_or(0),
        more: found.more,
    }
}

/// `None` if the answer is not one of etcd's.
pub fn txn_response(done: proto::TxnResponse, at: Revision) -> Option<TxnResponse> {
    let response = |op: proto::ResponseOp| {
        Some(match op.response? {
            Response::Put(put) => OpResponse::Put { previous: put.prev_kv.map(key_value) },
            Response::DeleteRange(gone) => {
                OpResponse::Delete { previous: gone.prev_kvs.into_iter().map(key_value).collect() }
            }
            Response::Range(found) => {
                let own = header_revision(found.header);
                OpResponse::Range(range_response(found, if own.0 > 0 { own } else { at }))
            }
            Response::Txn(nested) => OpResponse::Txn(txn_response(nested, at)?),
        })
    };
    let responses = done.responses.into_iter().map(response).collect::<Option<Vec<_>>>()?;
    Some(TxnResponse { revision: at, succeeded: done.succeeded, responses })
}

pub fn key_value(kv: proto::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: revision(kv.create_revision),
        mod_revision: revision(kv.mod_revision),
        version: u64::try_from(kv.version).unwrap_or(0),
        lease: LeaseId(kv.lease),
    }
}

pub fn event(event: proto::Event) -> Event {
    let is_delete = event.kind == proto::EventType::Delete as i32;
    Event {
        kind: if is_delete { EventKind::Delete } else { EventKind::Put },
        kv: key_value(event.kv.unwrap_or_default()),
        previous: event.prev_kv.map(key_value),
    }
}

/// etcd's words for what has gone wrong. `compacted`, `current`: what this server knows of them.
pub fn error(status: &tonic::Status, step: &'static str, compacted: Revision, current: Revision) -> Error {
    let text = status.message();
    let text = text.strip_prefix("etcdserver: ").unwrap_or(text);
    match text {
        "mvcc: required revision has been compacted" => Error::Compacted(compacted),
        "mvcc: required revision is a future revision" => Error::Future(current),
        "mvcc: database space exceeded" => Error::NoSpace("etcd's quota is used up".into()),
        // etcd refuses a little more than we do.
        "duplicate key given in txn request" => Error::Invalid(Invalid::DuplicateKey(Bytes::new())),
        "too many operations in txn request" => Error::Invalid(Invalid::TooManyOps(0)),
        "request is too large" => Error::Invalid(Invalid::TooLarge(0)),
        "key not found" => Error::KeyNotFound,
        "requested lease not found" => Error::LeaseNotFound,
        "lease already exists" => Error::LeaseExists,
        _ if status.code() == tonic::Code::Unavailable => Error::Unreachable(text.to_owned()),
        _ => Error::Failed { step, message: text.to_owned() },
    }
}
