//! Services Maintenance, Cluster and Auth: one member, its own leader, without users.

use super::answer::{MEMBER_ID, RAFT_TERM, from_error, header};
use super::snapshot::Parts;
use super::{Face, VERSION, form};
use crate::store::proto::{self, AlarmAction, AlarmMember, AlarmType, DowngradeAction, HeaderOnly};
use crate::store::{Alarm, Error, Revision, Store};
use futures::Stream;
use tonic::Status;

type Result<T> = std::result::Result<T, Status>;

/// What is answered where etcd would change its cluster.
const ONE_MEMBER: &str =
    "etcdserver: this store has one member; several servers share an etcd cluster (--datastore-endpoint)";

pub fn status(face: &Face) -> proto::StatusResponse {
    let store = &face.store;
    let revision = store.revision();
    let bytes = i64::try_from(store.disk_bytes()).unwrap_or(i64::MAX);
    let history = i64::try_from(store.history_bytes()).unwrap_or(i64::MAX);
    proto::StatusResponse {
        header: header(revision),
        version: VERSION.to_owned(),
        db_size: bytes,
        db_size_in_use: (bytes - history).max(0),
        db_size_quota: i64::try_from(store.quota_bytes()).unwrap_or(i64::MAX),
        leader: MEMBER_ID,
        raft_index: revision.0,
        raft_applied_index: revision.0,
        raft_term: RAFT_TERM,
        errors: store.alarm().map(|Alarm::NoSpace| "alarm:NOSPACE ".to_owned()).into_iter().collect(),
        is_learner: false,
        storage_version: STORAGE_VERSION.to_owned(),
        downgrade_info: Some(proto::DowngradeInfo::default()),
    }
}

/// Form of the snapshots.
const STORAGE_VERSION: &str = "3.5.0";

pub async fn hash(store: &dyn Store) -> Result<proto::HashResponse> {
    let whole = hash_kv(store, proto::HashKvRequest { revision: 0 }).await?;
    Ok(proto::HashResponse { header: whole.header, hash: whole.hash })
}

pub async fn hash_kv(store: &dyn Store, request: proto::HashKvRequest) -> Result<proto::HashKvResponse> {
    let mut snapshot = store.snapshot().await.map_err(from_error)?;
    let (revision, compacted) = (snapshot.head().revision, snapshot.head().compacted);
    let up_to = match u64::try_from(request.revision) {
        Ok(0) | Err(_) => revision,
        Ok(asked) if asked > revision.0 => return Err(from_error(Error::Future(revision))),
        Ok(asked) if asked < compacted.0 => return Err(from_error(Error::Compacted(compacted))),
        Ok(asked) => Revision(asked),
    };
    let hash = form::hash(&mut *snapshot, up_to).await.map_err(from_error)?;
    Ok(proto::HashKvResponse {
        header: header(revision),
        hash,
        // Nothing has been compacted: as etcd says it.
        compact_revision: if compacted.0 > 1 { compacted.0 as i64 } else { -1 },
        hash_revision: up_to.0 as i64,
    })
}

pub async fn defragment(store: &dyn Store) -> Result<HeaderOnly> {
    store.defragment().await.map_err(from_error)?;
    Ok(HeaderOnly::default())
}

pub fn alarm(store: &dyn Store, request: proto::AlarmRequest) -> Result<proto::AlarmResponse> {
    let wanted = |alarm: AlarmType| {
        let asked = AlarmType::try_from(request.alarm).unwrap_or(AlarmType::None);
        asked == AlarmType::None || asked == alarm
    };
    let active =
        |store: &dyn Store| store.alarm().map(|Alarm::NoSpace| AlarmType::NoSpace).filter(|alarm| wanted(*alarm));
    let listed = match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => active(store),
        Ok(AlarmAction::Deactivate) => {
            let ended = active(store);
            if ended.is_some() {
                store.disarm();
            }
            ended
        }
        Ok(AlarmAction::Activate) | Err(_) => {
            return Err(Status::unimplemented("etcdserver: alarms are raised by the store itself"));
        }
    };
    let member = |alarm: AlarmType| AlarmMember { member_id: MEMBER_ID, alarm: alarm as i32 };
    Ok(proto::AlarmResponse { header: header(store.revision()), alarms: listed.map(member).into_iter().collect() })
}

pub async fn snapshot(
    store: &dyn Store,
) -> Result<impl Stream<Item = Result<proto::SnapshotResponse>> + Send + 'static + use<>> {
    let snapshot = store.snapshot().await.map_err(from_error)?;
    let header = header(snapshot.head().revision);
    Ok(futures::stream::try_unfold(Parts::of(snapshot), move |mut parts| async move {
        let part = parts.next().await.map_err(from_error)?;
        let response = |(blob, remaining_bytes): (Vec<u8>, u64)| proto::SnapshotResponse {
            header,
            remaining_bytes,
            blob: blob.into(),
            version: String::new(),
        };
        Ok(part.map(|part| (response(part), parts)))
    }))
}

pub fn move_leader(request: proto::MoveLeaderRequest) -> Result<HeaderOnly> {
    match request.target_id {
        MEMBER_ID => Ok(HeaderOnly::default()),
        _ => Err(Status::failed_precondition("etcdserver: bad leader transferee")),
    }
}

pub fn downgrade(request: proto::DowngradeRequest) -> Result<HeaderOnly> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Cancel) => Err(Status::failed_precondition("etcdserver: no inflight downgrade job")),
        _ => Err(Status::invalid_argument("etcdserver: invalid downgrade target version")),
    }
}

pub fn members(face: &Face) -> proto::MemberListResponse {
    let member = proto::Member {
        id: MEMBER_ID,
        name: face.name.clone(),
        peer_urls: Vec::new(),
        client_urls: vec![face.url.clone()],
        is_learner: false,
    };
    proto::MemberListResponse { header: header(face.store.revision()), members: vec![member] }
}

/// Changes to a member that exists are refused, others do not find theirs.
pub fn change_member(request: proto::MemberRequest) -> Result<HeaderOnly> {
    match request.id {
        MEMBER_ID => Err(Status::unimplemented(ONE_MEMBER)),
        _ => Err(Status::not_found("etcdserver: member not found")),
    }
}

pub fn promote_member(request: proto::MemberRequest) -> Result<HeaderOnly> {
    match request.id {
        MEMBER_ID => Err(Status::failed_precondition("etcdserver: can only promote a learner member")),
        _ => Err(Status::not_found("etcdserver: member not found")),
    }
}

pub fn add_member() -> Result<HeaderOnly> {
    Err(Status::unimplemented(ONE_MEMBER))
}

/// Authentication is by client certificates alone.
pub fn auth_status(store: &dyn Store) -> proto::AuthStatusResponse {
    proto::AuthStatusResponse { header: header(store.revision()), enabled: false, auth_revision: 1 }
}

pub fn auth_enable() -> Result<HeaderOnly> {
    Err(Status::failed_precondition("etcdserver: root user does not exist"))
}

/// It is off already, which is no error.
pub fn auth_disable(store: &dyn Store) -> HeaderOnly {
    HeaderOnly { header: header(store.revision()) }
}

pub fn not_enabled() -> Result<HeaderOnly> {
    Err(Status::failed_precondition("etcdserver: authentication is not enabled"))
}

pub fn no_user() -> Result<HeaderOnly> {
    Err(Status::failed_precondition("etcdserver: user name not found"))
}

pub fn no_role() -> Result<HeaderOnly> {
    Err(Status::failed_precondition("etcdserver: role name not found"))
}

/// Users or roles: there are none.
pub fn nobody(store: &dyn Store) -> proto::NamesResponse {
    proto::NamesResponse { header: header(store.revision()), names: Vec::new() }
}
