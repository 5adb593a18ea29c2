//! What was written, in order, from memory and from disk.

use super::open::{Pages, damaged, record_place, sled_error};
use super::record::{Place, Record, decode};
use super::volatile::Kept;
use crate::store::{Error, EventKind, KeyValue, LeaseId, Revision};
use bytes::Bytes;
use std::iter::Peekable;

/// A write of the past.
pub struct PastWrite {
    pub deleted: bool,
    pub key: Bytes,
    create: u64,
    version: u64,
    lease: LeaseId,
    pub source: Source,
}

/// Where its value is.
pub enum Source {
    Memory(Bytes),
    /// The stored record.
    Disk(::sled::IVec),
}

impl PastWrite {
    fn in_memory(kept: &Kept) -> Self {
        PastWrite {
            deleted: kept.value.is_none(),
            key: Bytes::copy_from_slice(&kept.key),
            create: kept.create,
            version: kept.version,
            lease: LeaseId::NONE,
            source: Source::Memory(kept.value.clone().unwrap_or_default()),
        }
    }

    fn on_disk(stored: ::sled::IVec, place: Place) -> Result<Self, Error> {
        let Record { deleted, key, create, version, lease, .. } = decode(&stored).ok_or_else(|| damaged(place))?;
        let key = Bytes::copy_from_slice(key);
        Ok(PastWrite { deleted, key, create, version, lease, source: Source::Disk(stored) })
    }

    pub fn kind(&self) -> EventKind {
        if self.deleted { EventKind::Delete } else { EventKind::Put }
    }

    pub fn into_kv(self, place: Place, value: Bytes) -> KeyValue {
        KeyValue {
            key: self.key,
            value,
            create_revision: Revision(self.create),
            mod_revision: Revision(place.revision),
            version: self.version,
            lease: self.lease,
        }
    }
}

/// The writes of the past in order, each once.
pub struct Past {
    kept: Peekable<std::vec::IntoIter<(Place, Kept)>>,
    on_disk: ::sled::Iter,
    sled: ::sled::Tree,
    pages: Pages,
    ahead: Option<(Place, PastWrite)>,
    /// Of memory nothing behind this revision is known here.
    end: Option<u64>,
}

impl Past {
    /// From a place on. `kept`: what memory has, in order; complete up to the revision `end`, or altogether.
    pub fn new(from: Place, kept: Vec<(Place, Kept)>, sled: &::sled::Tree, end: Option<u64>) -> Self {
        let (on_disk, sled) = (sled.range(from.key()..), sled.clone());
        Past { kept: kept.into_iter().peekable(), on_disk, sled, pages: Pages::default(), ahead: None, end }
    }

    /// The next write; None at the end of what is known here, see [`Past::cut_at`].
    pub fn next(&mut self) -> Result<Option<(Place, PastWrite)>, Error> {
        if self.ahead.is_none() {
            self.ahead = self.read_disk()?;
        }
        let disk = self.ahead.as_ref().map(|(place, _)| *place);
        let memory = self.kept.next_if(|(place, _)| disk.is_none_or(|disk| *place <= disk));
        let next = match memory {
            Some((place, kept)) => {
                // Written back in between: it is in both.
                if disk == Some(place) {
                    self.ahead = None;
                }
                Some((place, PastWrite::in_memory(&kept)))
            }
            None => self.ahead.take(),
        };
        Ok(next.filter(|(place, _)| self.end.is_none_or(|end| place.revision <= end)))
    }

    /// Where to go on after the end, if there may be more.
    pub fn cut_at(&self) -> Option<Place> {
        self.end.map(|end| Place { revision: end + 1, sub: 0 })
    }

    fn read_disk(&mut self) -> Result<Option<(Place, PastWrite)>, Error> {
        let Some(entry) = self.on_disk.next() else { return Ok(None) };
        let (key, stored) = entry.map_err(|e| sled_error("reading history", e))?;
        match record_place(&key) {
            Some(place) => {
                self.pages.visited(&self.sled, place)?;
                Ok(Some((place, PastWrite::on_disk(stored, place)?)))
            }
            None => Ok(None),
        }
    }
}
