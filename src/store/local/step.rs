//! Evaluating a transaction: against everything committed and what the batch before it will write.

use super::index::{Key, Version};
use super::record::{Encoded, Place, Write};
use super::shared::key_value;
use super::volatile::Kept;
use super::writer::Writer;
use crate::store::txn::{Apply, Change};
use crate::store::{Error, Event, EventKind, KeyRange, KeyValue, LeaseId, RangeRequest, RangeResponse, Revision};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// What a batch does, until it is committed or undone.
#[derive(Default)]
pub struct Batch {
    pub records: Vec<(Place, Encoded)>,
    pub bytes: usize,
    /// Writes of the memory tier.
    pub kept: Vec<(Place, Kept)>,
    pub keys: Vec<Key>,
    pub values: HashMap<Place, Bytes>,
    pub events: Vec<Arc<Event>>,
}

/// A transaction under evaluation.
pub struct Step<'a> {
    pub writer: &'a mut Writer,
    pub batch: &'a mut Batch,
    /// Where its next write goes.
    pub place: Place,
    /// Its writes are of the memory tier.
    pub in_memory: bool,
}

impl Apply for Step<'_> {
    fn revision(&self) -> Revision {
        Revision(self.writer.revision)
    }

    fn compacted(&self) -> Revision {
        self.writer.shared.compacted()
    }

    fn has_lease(&self, id: LeaseId) -> bool {
        self.writer.shared.leases.contains(id)
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let revision = self.revision();
        let at = request.revision.unwrap_or(revision).0;
        let mut response = RangeResponse { revision, ..RangeResponse::default() };
        let index = &self.writer.shared.index;
        if request.count_only {
            response.count = index.read().count(&request.range, at);
            return Ok(response);
        }
        let found = index.read().range(&request.range, at, request.limit);
        (response.count, response.more) = (found.count, found.more);
        for (key, version) in &found.versions {
            let value = if request.keys_only { Bytes::new() } else { self.value(version.place())? };
            response.kvs.push(key_value(key, version, value));
        }
        Ok(response)
    }

    fn put(&mut self, key: &Bytes, change: Change<'_>) -> Result<Option<KeyValue>, Error> {
        let previous = self.current(key)?;
        let old = previous.as_ref();
        // A copy: the caller's bytes may be a small part of a large request.
        let value = match (change.value, old) {
            (Some(value), _) => Bytes::copy_from_slice(value),
            (None, old) => old.map(|kv| kv.value.clone()).unwrap_or_default(),
        };
        let write = Write {
            key,
            value: Some(&value),
            create: old.map_or(self.place.revision, |kv| kv.create_revision.0),
            version: old.map_or(1, |kv| kv.version + 1),
            lease: change.lease.or(old.map(|kv| kv.lease)).unwrap_or_default(),
        };
        self.write(&write, value.clone(), previous.clone());
        Ok(previous)
    }

    fn delete(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, Error> {
        let gone = self.range(&RangeRequest::of(range.clone()))?.kvs;
        for previous in &gone {
            let write = Write { key: &previous.key, value: None, create: 0, version: 0, lease: LeaseId::NONE };
            self.write(&write, Bytes::new(), Some(previous.clone()));
        }
        Ok(gone)
    }
}

impl Step<'_> {
    fn write(&mut self, write: &Write<'_>, value: Bytes, previous: Option<KeyValue>) {
        let (writer, batch, place) = (&mut *self.writer, &mut *self.batch, self.place);
        let encoded = if self.in_memory { None } else { Some(writer.encoder.encode(write)) };
        let stored = encoded.as_ref().map_or(write.key.len() + value.len(), Encoded::stored);
        let version = Version {
            revision: place.revision,
            sub: place.sub,
            stored: u32::try_from(stored).unwrap_or(u32::MAX),
            create: write.create,
            version: write.version,
            lease: write.lease,
        };
        let key = writer.shared.index.write().push(write.key, version);
        match encoded {
            Some(encoded) => {
                batch.bytes += encoded.stored();
                batch.records.push((place, encoded));
            }
            None => {
                let value = write.value.map(|_| value.clone());
                let (create, version) = (write.create, write.version);
                batch.kept.push((place, Kept { key: key.clone(), value, create, version }));
            }
        }
        batch.keys.push(key);
        let kind = if write.value.is_some() { EventKind::Put } else { EventKind::Delete };
        if kind == EventKind::Put {
            batch.values.insert(place, value.clone());
        }
        batch.events.push(Arc::new(Event { kind, kv: key_value(write.key, &version, value), previous }));
        writer.revision = place.revision;
        self.place.sub += 1;
    }

    /// A key's state now, with what the batch has written so far.
    fn current(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let version = self.writer.shared.index.read().get(key, u64::MAX);
        match version {
            Some(version) => Ok(Some(key_value(key, &version, self.value(version.place())?))),
            None => Ok(None),
        }
    }

    fn value(&self, place: Place) -> Result<Bytes, Error> {
        match self.batch.values.get(&place) {
            Some(value) => Ok(value.clone()),
            None => self.writer.shared.value(place),
        }
    }
}
