//! What was written, in order, from memory and from disk.

use super::engine::{Engine, damaged, missing};
use super::record::{Place, Record};
use super::volatile::Kept;
use crate::store::{Error, EventKind, KeyValue, LeaseId, Revision};
use bytes::Bytes;

/// A write of the past.
pub enum Past<'a> {
    InMemory(&'a Kept),
    OnDisk(&'a Record<'a>),
}

impl Past<'_> {
    pub fn key(&self) -> &[u8] {
        match self {
            Past::InMemory(kept) => &kept.key,
            Past::OnDisk(record) => record.key,
        }
    }

    pub fn deleted(&self) -> bool {
        match self {
            Past::InMemory(kept) => kept.value.is_none(),
            Past::OnDisk(record) => record.deleted,
        }
    }

    pub fn kind(&self) -> EventKind {
        if self.deleted() { EventKind::Delete } else { EventKind::Put }
    }

    /// Its value, past all caches.
    pub fn value(&self, place: Place, engine: &dyn Engine) -> Result<Bytes, Error> {
        match self {
            Past::InMemory(kept) => Ok(kept.value.clone().unwrap_or_default()),
            Past::OnDisk(record) => match record.value() {
                Some(value) => value.map_err(|_| damaged(place)),
                None => engine.value(place)?.ok_or_else(|| missing(place)),
            },
        }
    }

    pub fn kv(&self, place: Place, value: Bytes) -> KeyValue {
        let (create, version, lease) = match self {
            Past::InMemory(kept) => (kept.create, kept.version, LeaseId::NONE),
            Past::OnDisk(record) => (record.create, if record.deleted { 0 } else { record.version }, record.lease),
        };
        KeyValue {
            key: Bytes::copy_from_slice(self.key()),
            value,
            create_revision: Revision(create),
            mod_revision: Revision(place.revision),
            version,
            lease,
        }
    }
}

/// Told of a write; whether to go on.
pub type Tell<'a> = dyn FnMut(Place, &Past<'_>) -> Result<bool, Error> + 'a;

/// Go through the writes of the past in order, each once. `kept`: what memory has, in order; complete up to the revision
/// `end`, or altogether. Gives where to go on, if there may be more behind it.
pub fn go_through(
    engine: &dyn Engine,
    from: Place,
    kept: &[(Place, Kept)],
    end: Option<u64>,
    tell: &mut Tell<'_>,
) -> Result<Option<Place>, Error> {
    let mut kept = kept.iter().peekable();
    let (mut going, mut at_end) = (true, false);
    engine.scan(from, &mut |place, record| {
        while let Some((at, kept)) = kept.next_if(|(at, _)| going && *at <= place) {
            going = tell(*at, &Past::InMemory(kept))?;
            if *at == place {
                // Written back in between: it is in both.
                return Ok(going);
            }
        }
        at_end = end.is_some_and(|end| place.revision > end);
        if going && !at_end {
            going = tell(place, &Past::OnDisk(record))?;
        }
        Ok(going && !at_end)
    })?;
    while going && let Some((at, kept)) = kept.next() {
        going = tell(*at, &Past::InMemory(kept))?;
    }
    Ok(end.filter(|_| going).map(|end| Place { revision: end + 1, sub: 0 }))
}
