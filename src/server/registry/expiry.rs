//! What expires by itself: Events an hour after they were last seen (upstream's `--event-ttl`).

use super::{Registry, parse, range_of};
use crate::object::{Object, ObjectExt};
use crate::server::kinds::Kind;
use crate::store::{Compare, Error, KeyRange, Op, RangeRequest, Txn};
use crate::task::Group;
use crate::time;
use std::sync::Arc;
use std::time::Duration;

/// (group, plural, seconds) of kinds whose objects expire.
const EXPIRING: &[(&str, &str, i64)] = &[("", "events", 3600)];
/// How often objects are looked at: they live up to this much longer.
const PERIOD: Duration = Duration::from_secs(300);
/// Objects read at once.
const PAGE_OBJECTS: usize = 500;
/// Where an object says when it was last seen, besides its creation.
const SEEN: &[&[&str]] = &[&["lastTimestamp"], &["eventTime"], &["series", "lastObservedTime"]];

/// Remove what has expired, now and then, until `group` ends.
pub fn start(registry: Arc<Registry>, group: &Group) {
    group.spawn("expiry", async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            for (group, plural, life) in EXPIRING {
                let Some(kind) = registry.kind_of(group, plural) else { continue };
                if let Err(error) = expire(&registry, kind, time::now_seconds() - life).await {
                    tracing::warn!(resource = plural, %error, "expired objects could not be removed; trying again later");
                }
            }
        }
    });
}

/// Remove the objects of a kind that were last seen before `oldest` (Unix seconds). Returns how many.
pub async fn expire(registry: &Registry, kind: &Kind, oldest: i64) -> Result<usize, Error> {
    let mut range = range_of(kind, "");
    let mut removed = 0;
    loop {
        let request = RangeRequest { limit: PAGE_OBJECTS, ..RangeRequest::of(range.clone()) };
        let page = registry.store().range(request).await?;
        for kv in &page.kvs {
            let Ok(object) = parse(kind, &kv.value, kv.mod_revision) else { continue };
            if last_seen(&object) >= oldest {
                continue;
            }
            let txn = Txn {
                // Seen again meanwhile: it stays.
                compare: vec![Compare::unchanged(kv.key.clone(), kv.mod_revision)],
                success: vec![Op::Delete(KeyRange::key(kv.key.clone()))],
                failure: vec![],
            };
            removed += usize::from(registry.store().txn(txn).await?.succeeded);
        }
        match page.kvs.last() {
            Some(last) if page.more => range.start = [&last.key[..], &[0]].concat().into(),
            _ => return Ok(removed),
        }
    }
}

fn last_seen(object: &Object) -> i64 {
    let created = object.str_at(&["metadata", "creationTimestamp"]);
    let seen = SEEN.iter().map(|path| object.str_at(path)).chain([created]);
    seen.filter_map(time::parse_seconds).max().unwrap_or(0)
}
