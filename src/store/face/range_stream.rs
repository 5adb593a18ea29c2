//! KV's RangeStream (etcd 3.7): a range in parts, at one revision, so that neither side ever holds all of it.

use super::answer::{from_error, header};
use super::kv::{key_value, range_request};
use super::refine::Refine;
use crate::store::proto::{self, RangeStreamResponse};
use crate::store::{KeyRange, RangeRequest, Revision, Store};
use futures::Stream;
use std::sync::Arc;
use tonic::Status;

type Result<T> = std::result::Result<T, Status>;

/// Keys in the first part. Parts grow and shrink to about [`PART_BYTES`].
const FIRST_KEYS: usize = 16;
const MOST_KEYS: usize = 10_000;
const PART_BYTES: usize = 1 << 20;

/// Answer in parts. All of them show the same revision, also where none was asked for. What
/// [`kv::range`](super::kv::range) would say of the whole (header, count, more) is in the last part.
pub fn range_stream(
    store: Arc<dyn Store>,
    request: &proto::RangeRequest,
) -> Result<impl Stream<Item = Result<RangeStreamResponse>> + Send + 'static + use<>> {
    if Refine::of(request)?.is_some() {
        return Err(Status::unimplemented("etcdserver: RangeStream neither sorts nor filters by revision: use Range"));
    }
    let parts = Parts::new(store, range_request(request, None)?, FIRST_KEYS);
    let answer = |part| RangeStreamResponse { range_response: Some(part) };
    let next = move |mut parts: Parts| async move { Ok(parts.next().await?.map(|part| (answer(part), parts))) };
    Ok(futures::stream::try_unfold(parts, next))
}

/// A range that is read in parts.
pub(super) struct Parts {
    store: Arc<dyn Store>,
    /// What is left of the range.
    asked: RangeRequest,
    /// Of the whole; 0: none.
    limit: usize,
    /// Keys in the next part.
    keys: usize,
    /// Keys handed out.
    given: usize,
    /// The store's revision when the first part was read.
    at: Option<Revision>,
    ended: bool,
}

impl Parts {
    /// `keys`: of the first part.
    pub fn new(store: Arc<dyn Store>, asked: RangeRequest, keys: usize) -> Self {
        Parts { store, limit: asked.limit, asked, keys, given: 0, at: None, ended: false }
    }

    /// The same once more, at the same revision: together as long as these were.
    pub fn again(&self, asked: RangeRequest, keys: usize) -> Self {
        let asked = RangeRequest { revision: asked.revision.or(self.at), ..asked };
        Parts { at: self.at, ..Parts::new(self.store.clone(), asked, keys) }
    }

    /// The next part; what is said of the whole is in the last one. One after the other, parts are the answer to the whole
    /// also as bytes.
    pub async fn next(&mut self) -> Result<Option<proto::RangeResponse>> {
        if self.ended {
            return Ok(None);
        }
        let left = if self.limit > 0 { self.limit - self.given } else { usize::MAX };
        self.asked.limit = self.keys.min(left);
        let found = self.store.range(self.asked.clone()).await.map_err(from_error)?;
        let at = *self.at.get_or_insert(found.revision);
        self.asked.revision.get_or_insert(at);
        let (before, bytes) = (self.given, found.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>());
        self.given += found.kvs.len();
        let mut part = proto::RangeResponse::default();
        match found.kvs.last() {
            Some(last) if found.more && found.kvs.len() < left => {
                self.asked.range = after(&last.key, &self.asked.range);
                self.keys = next_keys(self.keys, bytes);
            }
            _ => {
                self.ended = true;
                part.header = header(at);
                part.count = i64::try_from(before + found.count).unwrap_or(i64::MAX);
                part.more = found.more;
            }
        }
        part.kvs = found.kvs.into_iter().map(key_value).collect();
        Ok(Some(part))
    }
}

/// The rest of a range behind a key.
fn after(key: &[u8], range: &KeyRange) -> KeyRange {
    KeyRange { start: [key, &[0]].concat().into(), end: range.end.clone() }
}

fn next_keys(keys: usize, bytes: usize) -> usize {
    match bytes {
        bytes if bytes < PART_BYTES / 2 => (keys * 2).min(MOST_KEYS),
        bytes if bytes > PART_BYTES * 2 => (keys / 2).max(1),
        _ => keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::{Op, Txn};
    use futures::TryStreamExt;

    async fn write(store: &Arc<dyn Store>, key: String, value: Vec<u8>) {
        store.txn(Txn { success: vec![Op::put(key, value)], ..Txn::default() }).await.expect("writes");
    }

    #[tokio::test]
    async fn parts_make_up_the_range() {
        let store: Arc<dyn Store> = Memory::open();
        for number in 0..100 {
            write(&store, format!("/k/{number:03}"), vec![b'x'; if number == 50 { 3 << 20 } else { 40_000 }]).await;
        }
        let all = |limit: i64, revision: i64| proto::RangeRequest {
            key: "/k/".into(),
            range_end: "/k0".into(),
            limit,
            revision,
            ..Default::default()
        };
        for (limit, revision) in
            [(0, 0), (1, 0), (16, 0), (17, 0), (40, 0), (99, 0), (100, 0), (101, 0), (0, 30), (5, 30)]
        {
            let request = all(limit, revision);
            let wanted = super::super::kv::range(&*store, request.clone()).await.expect("reads");
            let stream = range_stream(store.clone(), &request).expect("valid");
            let parts: Vec<_> =
                stream.map_ok(|part| part.range_response.expect("a range")).try_collect().await.unwrap();
            let (last, others) = parts.split_last().expect("at least one");
            assert!(others.iter().all(|part| part.header.is_none() && part.count == 0 && !part.more));
            assert!(parts.iter().all(|part| part.kvs.len() <= 64));
            let mut whole = last.clone();
            whole.kvs = parts.iter().flat_map(|part| part.kvs.clone()).collect();
            assert_eq!(whole, wanted, "limit {limit} at {revision}");
        }
    }

    #[tokio::test]
    async fn what_is_written_meanwhile_is_not_seen() {
        let store: Arc<dyn Store> = Memory::open();
        for number in 0..FIRST_KEYS + 1 {
            write(&store, format!("/k/{number:03}"), Vec::new()).await;
        }
        let request = proto::RangeRequest { key: "/k/".into(), range_end: "/k0".into(), ..Default::default() };
        let mut stream = Box::pin(range_stream(store.clone(), &request).expect("valid"));
        stream.try_next().await.expect("reads").expect("a part");
        write(&store, "/k/999".into(), Vec::new()).await;
        let last = stream.try_next().await.expect("reads").and_then(|part| part.range_response).expect("a part");
        assert_eq!((last.kvs.len(), last.count), (1, FIRST_KEYS as i64 + 1));
        assert_eq!(last.header.map(|header| header.revision), Some(FIRST_KEYS as i64 + 2));
        assert!(stream.try_next().await.expect("ends").is_none());
        let sorted = proto::RangeRequest { sort_order: proto::SortOrder::Descend as i32, ..request };
        assert_eq!(range_stream(store, &sorted).err().expect("is refused").code(), tonic::Code::Unimplemented);
    }
}
