//! The store's errors as etcd says them: client libraries match on code and text (etcd's `rpctypes`).

use crate::store::proto::ResponseHeader;
use crate::store::{Error, Invalid, Revision};
use tonic::{Code, Status};

/// Identifies this store as a cluster of one member ("kedge" in ASCII).
pub const CLUSTER_ID: u64 = 0x6b65646765;
pub const MEMBER_ID: u64 = 1;

/// There are no elections.
pub const RAFT_TERM: u64 = 1;

pub fn header(revision: Revision) -> Option<ResponseHeader> {
    let revision = revision.0 as i64;
    Some(ResponseHeader { cluster_id: CLUSTER_ID, member_id: MEMBER_ID, revision, raft_term: RAFT_TERM })
}

/// Of a step of a transaction: etcd says no more there.
pub fn step_header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.0 as i64, ..ResponseHeader::default() })
}

pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

pub fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub fn from_error(error: Error) -> Status {
    match error {
        Error::Compacted(_) => Status::out_of_range(COMPACTED),
        Error::Future(_) => Status::out_of_range("etcdserver: mvcc: required revision is a future revision"),
        Error::NoSpace(_) => Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
        Error::Invalid(why) => Status::invalid_argument(match why {
            Invalid::EmptyKey => return empty_key(),
            Invalid::DuplicateKey(_) => "etcdserver: duplicate key given in txn request".to_owned(),
            Invalid::TooManyOps(_) | Invalid::TooDeep => "etcdserver: too many operations in txn request".to_owned(),
            Invalid::TooLarge(_) => "etcdserver: request is too large".to_owned(),
            Invalid::LongKey(_) => format!("etcdserver: {why}"),
        }),
        Error::KeyNotFound => Status::invalid_argument("etcdserver: key not found"),
        Error::LeaseNotFound => lease_not_found(),
        Error::LeaseExists => Status::failed_precondition("etcdserver: lease already exists"),
        Error::TooManyLeases(_) => Status::resource_exhausted("etcdserver: too many requests"),
        Error::Damaged(_) => Status::data_loss(format!("etcdserver: {error}")),
        Error::Unreachable(_) => Status::unavailable(format!("etcdserver: {error}")),
        Error::Closed => stopped(),
        Error::Failed { .. } => Status::new(Code::Internal, format!("etcdserver: {error}")),
    }
}
