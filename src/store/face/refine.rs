//! What etcd's ranges offer beyond the store's own: filters by revision, and sorting. Done here, over what a backend
//! has found.

use crate::store::proto::{RangeRequest, SortOrder, SortTarget};
use crate::store::{KeyValue, RangeResponse};
use bytes::Bytes;
use std::cmp::Ordering;
use tonic::Status;

/// How a range is to be refined.
pub struct Refine {
    limit: usize,
    keys_only: bool,
    /// Least and greatest; 0: no bound.
    modified: (i64, i64),
    created: (i64, i64),
    sort: Option<(SortTarget, SortOrder)>,
}

impl Refine {
    /// `None` if there is nothing beyond what backends do themselves.
    pub fn of(request: &RangeRequest) -> Result<Option<Self>, Status> {
        let invalid = |_| Status::invalid_argument("etcdserver: invalid sort option");
        let target = SortTarget::try_from(request.sort_target).map_err(invalid)?;
        let order = SortOrder::try_from(request.sort_order).map_err(invalid)?;
        let sort = match (target, order) {
            // The order that keys come in.
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
            (target, SortOrder::None) => Some((target, SortOrder::Ascend)),
            sort => Some(sort),
        };
        let refine = Refine {
            limit: usize::try_from(request.limit).unwrap_or(0),
            keys_only: request.keys_only,
            modified: (request.min_mod_revision, request.max_mod_revision),
            created: (request.min_create_revision, request.max_create_revision),
            sort,
        };
        let filters = refine.modified != (0, 0) || refine.created != (0, 0);
        Ok((refine.sort.is_some() || filters).then_some(refine))
    }

    /// Whether values have to be read though they are not asked for.
    pub fn needs_values(&self) -> bool {
        matches!(self.sort, Some((SortTarget::Value, _)))
    }

    /// Refine what was found without a limit. The count stays that of the range.
    pub fn apply(&self, found: &mut RangeResponse) {
        let within = |revision: u64, (least, most): (i64, i64)| {
            let revision = revision as i64;
            (least == 0 || revision >= least) && (most == 0 || revision <= most)
        };
        found.kvs.retain(|kv| within(kv.mod_revision.0, self.modified) && within(kv.create_revision.0, self.created));
        if let Some((target, order)) = self.sort {
            found.kvs.sort_by(|a, b| match order {
                SortOrder::Descend => compare(target, b, a),
                _ => compare(target, a, b),
            });
        }
        if self.limit > 0 && found.kvs.len() > self.limit {
            found.kvs.truncate(self.limit);
            found.more = true;
        }
        if self.keys_only {
            found.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
    }
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{LeaseId, Revision};

    #[test]
    fn filters_then_order_then_limit() {
        // key, value, created, modified, version
        let kvs = [("a", "3", 2, 9, 4), ("b", "1", 3, 5, 2), ("c", "2", 4, 4, 1), ("d", "2", 6, 7, 2)];
        let kv = |&(key, value, create, modified, version): &(&'static str, &'static str, u64, u64, u64)| KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: Revision(create),
            mod_revision: Revision(modified),
            version,
            lease: LeaseId::NONE,
        };
        let by = |target: SortTarget, order: SortOrder| RangeRequest {
            sort_target: target as i32,
            sort_order: order as i32,
            ..RangeRequest::default()
        };
        let none = || by(SortTarget::Key, SortOrder::None);
        let cases = [
            (by(SortTarget::Key, SortOrder::Descend), "dcba", false),
            (by(SortTarget::Mod, SortOrder::None), "cbda", false),
            (by(SortTarget::Create, SortOrder::Descend), "dcba", false),
            (by(SortTarget::Value, SortOrder::Ascend), "bcda", false),
            (by(SortTarget::Version, SortOrder::Descend), "abdc", false),
            (RangeRequest { limit: 2, ..by(SortTarget::Mod, SortOrder::Ascend) }, "cb", true),
            (RangeRequest { min_mod_revision: 5, ..none() }, "abd", false),
            (RangeRequest { max_mod_revision: 5, min_create_revision: 3, ..none() }, "bc", false),
            (RangeRequest { max_create_revision: 3, limit: 1, ..none() }, "a", true),
        ];
        for (request, wanted, more) in cases {
            let mut found = RangeResponse { kvs: kvs.iter().map(kv).collect(), count: 4, ..RangeResponse::default() };
            Refine::of(&request).expect("valid").expect("refines").apply(&mut found);
            let keys: String = found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
            assert_eq!((keys.as_str(), found.more, found.count), (wanted, more, 4), "{request:?}");
        }
        assert!(Refine::of(&by(SortTarget::Key, SortOrder::Ascend)).expect("valid").is_none());
        assert!(Refine::of(&RangeRequest { sort_order: 7, ..none() }).is_err());
    }
}
