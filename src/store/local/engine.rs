//! What the store needs of what keeps its records on disk. There are two such engines: `log` (the default) and `sled`.
//!
//! An engine holds records by their place, leases and a few numbers, and changes them all or none. It knows neither
//! keys nor revisions beyond that: which record is whose, and which is needed no more, is the store's business.

use super::Options;
use super::directory::Directory;
use super::index::{Index, Superseded, Version};
use super::record::{Encoded, Place, Record};
use crate::store::{Error, LeaseId};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// Which engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Log,
    Sled,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Log, Kind::Sled];

    /// Its name, also that of its directory.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Sled => "sled",
        }
    }

    /// Open the engine's files in a directory of their own, or make new ones, and read them through. Damage that leaves
    /// nothing that can be relied on is [`Error::Damaged`].
    pub(in crate::store) fn open(self, path: &Path, options: &Options) -> Result<Opened, Error> {
        match self {
            Kind::Log => crate::store::log::open(path),
            Kind::Sled => crate::store::sled::open(path, options),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("{text}: expected log or sled"))
    }
}

/// What opening found.
pub struct Opened {
    pub engine: Arc<dyn Engine>,
    pub index: Index,
    /// Revision of the newest record; 1 if there is none.
    pub last: u64,
    pub leases: Vec<(LeaseId, LeaseEntry)>,
    /// What was noted last.
    pub notes: Notes,
    /// What is wrong behind what was read; that is whole up to there. Only to be copied, then.
    pub damage: Option<String>,
}

/// A lease on disk, in seconds. `remaining`: if it was noted down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEntry {
    pub granted: u32,
    pub remaining: Option<u32>,
}

/// Numbers that are kept beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The compacted revision.
    pub compacted: Option<u64>,
    /// See [`Reserved`].
    pub reserved: Option<Reserved>,
    /// What the memory tier held below this revision may be lost.
    pub floor: Option<u64>,
}

impl Notes {
    /// With what another one says instead.
    pub fn with(self, newer: Notes) -> Notes {
        Notes {
            compacted: newer.compacted.or(self.compacted),
            reserved: newer.reserved.or(self.reserved),
            floor: newer.floor.or(self.floor),
        }
    }
}

/// Up to where revisions may be given out that are not on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub revision: u64,
    /// None was: everything up to this revision is on disk.
    pub clean: bool,
}

/// What happens to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// It is not there yet.
    Add(LeaseEntry),
    /// It is there.
    Note(LeaseEntry),
    /// It is there.
    Remove,
}

/// Changes that are made together or not at all.
#[derive(Default)]
pub struct Changes {
    /// Records that are not there yet.
    pub records: Vec<(Place, Encoded)>,
    pub leases: Vec<(LeaseId, LeaseChange)>,
    pub notes: Notes,
}

/// What changes do to the room on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They fill the store.
    Fill,
    /// Deletions and compaction: possible on a full disk, for a while.
    Empty,
}

impl Changes {
    pub fn purpose(&self) -> Purpose {
        let fills = self.records.iter().any(|(_, record)| !record.deletes())
            || self.leases.iter().any(|(_, change)| matches!(change, LeaseChange::Add(_)));
        if fills { Purpose::Fill } else { Purpose::Empty }
    }

    /// Bytes of the records.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|(_, record)| record.stored()).sum()
    }
}

/// What an engine may have to know of the store above it.
pub struct Above<'a> {
    pub directory: &'a Directory,
    /// The last revision that was acknowledged.
    pub committed: u64,
    /// Places of records that are only in memory, though some may be on disk.
    pub in_memory: &'a dyn Fn() -> Vec<Place>,
    /// Bytes of all records.
    pub stored: u64,
}

/// Told of a record; whether to go on.
pub type Visit<'a> = dyn FnMut(Place, &Record<'_>) -> Result<bool, Error> + 'a;

/// An open engine. One thread changes it, any may read.
pub trait Engine: Send + Sync {
    /// Make changes, and wait until the disk has them. After an error the engine has to be mended first.
    fn commit(&self, changes: Changes) -> Result<(), Error>;

    /// Take out records that nobody needs any more. The disk may hear of it late: until then they may be there again when
    /// the store is opened. `more`: others follow soon.
    fn forget(&self, gone: &[Superseded], more: bool) -> Result<(), Error>;

    /// The value of a record; `None` if the record is not there.
    fn value(&self, place: Place) -> Result<Option<Bytes>, Error>;

    /// Values of many records that are there, each with its position.
    fn values(&self, places: &[Place], give: &mut dyn FnMut(usize, Bytes)) -> Result<(), Error> {
        for (position, place) in places.iter().enumerate() {
            give(position, self.value(*place)?.ok_or_else(|| missing(*place))?);
        }
        Ok(())
    }

    /// Go through the records from a place on, in order.
    fn scan(&self, from: Place, visit: &mut Visit<'_>) -> Result<(), Error>;

    /// Do a small step of giving space back, if there is reason to. Whether there is more to do at once.
    fn tidy(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// Get over an error of an earlier call, if there was one: be as after the last acknowledged commit, and able to
    /// write.
    fn mend(&self, above: &Above<'_>) -> Result<(), Error>;

    /// Give back all the space that can be.
    fn defragment(&self, above: &Above<'_>) -> Result<(), Error>;

    /// Give back memory. `sample`: where so many records are, taken from everywhere.
    fn trim(&self, sample: &dyn Fn(usize) -> Vec<Place>) {
        let _ = sample;
    }

    /// Bytes on disk.
    fn bytes(&self) -> u64;

    /// Bytes on disk that cannot be used again, where so many are stored.
    fn used_bytes(&self, stored: u64) -> u64;

    /// Bytes written since it was opened.
    fn written(&self) -> u64;

    /// Have everything on disk, and let go of the files.
    fn close(&self) -> Result<(), Error>;
}

/// How a record stands in the index.
pub fn version(place: Place, record: &Record<'_>, stored: usize) -> Version {
    Version {
        revision: place.revision,
        sub: place.sub,
        stored: u32::try_from(stored).unwrap_or(u32::MAX),
        create: record.create,
        version: if record.deleted { 0 } else { record.version },
        lease: record.lease,
    }
}

pub fn damaged(place: Place) -> Error {
    Error::Damaged(format!("{place} cannot be read"))
}

pub fn missing(place: Place) -> Error {
    Error::Damaged(format!("{place} is missing"))
}
