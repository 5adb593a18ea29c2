//! Opening, and what to do when files are damaged.
//!
//! What sled gives is read through once, and must reach as far as the [`Mark`] says that writes were acknowledged.
//! Otherwise the store goes on with what is newer: the part that sled still has (always a prefix of what was written),
//! or the newest rolling snapshot that is whole. Either way the loss is put on record, the damaged files are kept, and
//! revisions jump ahead, so that no client takes an old one for a new one.

use super::Options;
use super::directory::{Directory, failed};
use super::engine::{Changes, Kind, LeaseChange, LeaseEntry, Notes, Opened, Reserved};
use super::mark::{Mark, Noted};
use super::record::{Encoder, Place, Write};
use crate::store::condition::Loss;
use crate::store::snapshots;
use crate::store::snapshots::format::{Item, Reader};
use crate::store::{Error, EventKind, Revision};
use std::io::Read;
use std::path::{Path, PathBuf};
use tracing::{error, info, warn};

/// How far revisions jump when writes were lost: more than can have been given out since the last note that reached the
/// disk.
pub const REVISION_JUMP: u64 = 1_000_000;

/// Bytes of records between two barriers while new files are filled.
const FILL_BYTES: usize = 1 << 20;

/// A store's content, read through.
pub struct Loaded {
    pub opened: Opened,
    /// The last revision that is on disk.
    pub reached: u64,
    pub committed: u64,
    pub compacted: u64,
    /// What the memory tier held below this revision may be lost.
    pub floor: u64,
}

/// Open the store in a directory, and repair it if it is damaged. Files of another engine than the one that is wanted are
/// made anew for that.
pub fn open(directory: &Directory, options: &Options) -> Result<(Loaded, Mark), Error> {
    let path = directory.mark();
    let (mark, noted) = Mark::open(&path).map_err(|e| failed("opening the note of the last write", &path, &e))?;
    let there = directory.current()?;
    let wanted = options.engine.or(there).unwrap_or_default();
    let kind = there.unwrap_or(wanted);
    let loaded = open_as(kind, directory, options, noted)?;
    if kind == wanted {
        return Ok((loaded, mark));
    }
    info!(from = kind.name(), to = wanted.name(), "the store's files are made anew for another engine");
    match convert(directory, &loaded.opened, wanted, options) {
        Ok(made) => {
            loaded.opened.engine.close()?;
            drop(loaded);
            directory.swap(&made, kind, wanted)?;
            Ok((load(directory, wanted, options)?, mark))
        }
        Err(error) => {
            warn!(%error, engine = kind.name(), "that was not possible; the store goes on as it is");
            directory.restoring()?;
            Ok((loaded, mark))
        }
    }
}

/// Open what is there, and repair it.
fn open_as(kind: Kind, directory: &Directory, options: &Options, noted: Noted) -> Result<Loaded, Error> {
    match load(directory, kind, options) {
        Ok(loaded) if loaded.opened.damage.is_none() && loaded.reached >= noted.durable => Ok(loaded),
        Ok(loaded) => lost_the_end(kind, directory, options, &loaded, noted),
        // Nothing says that there ever was a store of ours.
        Err(Error::Damaged(cause)) if noted == Noted::default() && snapshots(directory).is_empty() => {
            Err(Error::Damaged(cause))
        }
        Err(Error::Damaged(cause)) => from_snapshot(kind, directory, options, noted, &cause),
        Err(other) => Err(other),
    }
}

fn load(directory: &Directory, kind: Kind, options: &Options) -> Result<Loaded, Error> {
    let opened = kind.open(&directory.files(kind), options)?;
    let compacted = opened.notes.compacted.unwrap_or(1);
    let reached = opened.last.max(compacted);
    let (committed, floor) = if opened.damage.is_some() { (reached, 0) } else { settle_reserved(&opened, reached)? };
    Ok(Loaded { opened, reached, committed, compacted, floor })
}

/// The engine opened, but without the last writes. What it has goes into new files: it would find the end at the same
/// place again, whatever is written behind.
fn lost_the_end(
    kind: Kind,
    directory: &Directory,
    options: &Options,
    loaded: &Loaded,
    noted: Noted,
) -> Result<Loaded, Error> {
    let cause = match &loaded.opened.damage {
        Some(damage) => format!("the store's files end at revision {}: {damage}", loaded.reached),
        None => format!("the store's files end at revision {}", loaded.reached),
    };
    let newest = snapshots(directory).into_iter().find_map(|path| whole(&path));
    // Without anything left, not even an empty store is made of it.
    if loaded.reached <= 1 || newest.is_some_and(|revision| revision.0 > loaded.reached) {
        loaded.opened.engine.close()?;
        return from_snapshot(kind, directory, options, noted, &cause);
    }
    let (first_lost, continues_at) = (loaded.reached + 1, continues_at(loaded.committed, noted));
    let restoring = directory.restoring()?;
    let notes = Notes { compacted: Some(continues_at), ..Notes::default() };
    copy(&loaded.opened, &restoring, kind, options, notes)?;
    loaded.opened.engine.close()?;
    let kept = directory.replace(&restoring, kind, kind)?;
    let loss = Loss {
        time: crate::time::now_seconds(),
        cause,
        first_lost,
        last_lost: noted.durable,
        restored: "what was left of them".to_owned(),
        kept: Some(kept.display().to_string()),
        continues_at,
    };
    record(directory, loss)?;
    load(directory, kind, options)
}

/// Make files of the engine that is wanted, with the same store.
fn convert(directory: &Directory, from: &Opened, wanted: Kind, options: &Options) -> Result<PathBuf, Error> {
    let made = directory.restoring()?;
    let notes = Notes { compacted: Some(from.notes.compacted.unwrap_or(1)), ..from.notes };
    copy(from, &made, wanted, options, notes)?;
    Ok(made)
}

/// Make new files with the records and leases of another engine, and with these notes.
fn copy(from: &Opened, path: &Path, kind: Kind, options: &Options, notes: Notes) -> Result<(), Error> {
    let mut filling = Filling::begin(path, kind, options)?;
    for (id, entry) in &from.leases {
        filling.changes.leases.push((*id, LeaseChange::Add(*entry)));
    }
    from.engine.scan(Place { revision: 0, sub: 0 }, &mut |place, record| {
        let value = match record.value() {
            Some(value) => value.map_err(|_| super::engine::damaged(place))?,
            None => from.engine.value(place)?.ok_or_else(|| super::engine::missing(place))?,
        };
        filling.add(
            place,
            &Write {
                key: record.key,
                value: (!record.deleted).then_some(&value[..]),
                create: record.create,
                version: record.version,
                lease: record.lease,
            },
        )?;
        Ok(true)
    })?;
    filling.finish(notes)
}

/// New files that are being filled.
struct Filling {
    opened: Opened,
    encoder: Encoder,
    changes: Changes,
    bytes: usize,
}

impl Filling {
    fn begin(path: &Path, kind: Kind, options: &Options) -> Result<Self, Error> {
        let opened = kind.open(path, options)?;
        Ok(Filling { opened, encoder: Encoder::new(), changes: Changes::default(), bytes: 0 })
    }

    fn add(&mut self, place: Place, write: &Write<'_>) -> Result<(), Error> {
        let encoded = self.encoder.encode(write);
        self.bytes += encoded.stored();
        self.changes.records.push((place, encoded));
        if self.bytes >= FILL_BYTES {
            self.bytes = 0;
            self.opened.engine.commit(std::mem::take(&mut self.changes))?;
        }
        Ok(())
    }

    fn finish(mut self, notes: Notes) -> Result<(), Error> {
        self.changes.notes = notes;
        self.opened.engine.commit(self.changes)?;
        self.opened.engine.close()
    }
}

/// Put the newest whole snapshot in the place of damaged files.
fn from_snapshot(
    kind: Kind,
    directory: &Directory,
    options: &Options,
    noted: Noted,
    cause: &str,
) -> Result<Loaded, Error> {
    for path in snapshots(directory) {
        let Some(revision) = whole(&path) else { continue };
        let continues_at = continues_at(revision.0, noted);
        let restoring = directory.restoring()?;
        let io = |e| failed("reading a snapshot", &path, &e);
        fill(&restoring, kind, options, &mut snapshots::open(&path).map_err(io)?, continues_at)?;
        let kept = directory.replace(&restoring, kind, kind)?;
        let loss = Loss {
            time: crate::time::now_seconds(),
            cause: cause.to_owned(),
            first_lost: revision.0 + 1,
            last_lost: noted.durable.max(revision.0),
            restored: format!("the snapshot of revision {revision}"),
            kept: Some(kept.display().to_string()),
            continues_at,
        };
        record(directory, loss)?;
        return load(directory, kind, options);
    }
    Err(Error::Damaged(format!(
        "{cause}; there is no whole snapshot to repair it from: restore a backup (kedge backup restore)"
    )))
}

fn continues_at(last: u64, noted: Noted) -> u64 {
    last.max(noted.durable).max(noted.reserved) + REVISION_JUMP
}

fn snapshots(directory: &Directory) -> Vec<PathBuf> {
    snapshots::list(&directory.snapshots())
}

/// The revision of a snapshot that can be used.
fn whole(path: &Path) -> Option<Revision> {
    match snapshots::check(path) {
        Ok(summary) => Some(summary.revision),
        Err(error) => {
            warn!(path = %path.display(), %error, "this snapshot cannot be used");
            None
        }
    }
}

/// Say loudly what was lost: in the log and in a file; the store's condition shows it from there.
fn record(directory: &Directory, loss: Loss) -> Result<(), Error> {
    error!("THE STORE WAS DAMAGED: {loss}");
    directory.add_loss(loss)
}

/// Make new files out of a snapshot. Revisions go on from `continues_at`, older ones count as compacted.
pub fn fill(
    path: &Path,
    kind: Kind,
    options: &Options,
    snapshot: &mut Reader<impl Read>,
    continues_at: u64,
) -> Result<(), Error> {
    let mut filling = Filling::begin(path, kind, options)?;
    while let Some(items) = snapshot.frame().map_err(|e| Error::Damaged(format!("a snapshot: {e}")))? {
        for item in items {
            match item {
                Item::Lease(lease) => {
                    let entry = LeaseEntry { granted: lease.granted, remaining: Some(lease.remaining.max(1)) };
                    filling.changes.leases.push((lease.id, LeaseChange::Add(entry)));
                }
                Item::Write(write) => {
                    let kv = &write.kv;
                    let place = Place { revision: kv.mod_revision.0, sub: write.sub };
                    let value = (write.kind == EventKind::Put).then_some(&kv.value[..]);
                    let (create, version, lease) = (kv.create_revision.0, kv.version, kv.lease);
                    filling.add(place, &Write { key: &kv.key, value, create, version, lease })?;
                }
            }
        }
    }
    filling.finish(Notes { compacted: Some(continues_at), ..Notes::default() })?;
    info!(revision = continues_at, "the store is filled from a snapshot");
    Ok(())
}

/// What was reserved when the store was last used, as (current revision, floor of the memory tier). After an unclean
/// stop every reserved revision counts as given out, and what was only in memory is lost.
fn settle_reserved(opened: &Opened, reached: u64) -> Result<(u64, u64), Error> {
    let floor = opened.notes.floor.unwrap_or(0);
    let Some(reserved) = opened.notes.reserved else { return Ok((reached, floor)) };
    if reserved.clean {
        return Ok((reached.max(reserved.revision), floor));
    }
    // One that nobody was given: history from there on is whole.
    let committed = reached.max(reserved.revision) + 1;
    let reserved = Some(Reserved { revision: committed, clean: true });
    let notes = Notes { floor: Some(committed), reserved, compacted: None };
    opened.engine.commit(Changes { notes, ..Changes::default() })?;
    Ok((committed, committed))
}

#[cfg(test)]
mod tests;
