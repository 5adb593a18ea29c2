//! The one writer: a thread that takes what is waiting, evaluates it in order, inserts everything, passes one barrier,
//! and only then shows and acknowledges it (group commit). Compaction's removals go in small steps in between.

use super::engine::{Changes, LeaseChange, LeaseEntry, Notes, Reserved};
use super::index::Key;
use super::record::{Encoded, Encoder, Place, Write};
use super::shared::Shared;
use super::step::{Batch, Step};
use super::volatile::{Kept, PAUSE, RESERVED_REVISIONS};
use crate::store::txn::{Apply, check_compact, run};
use crate::store::{Error, KeyRange, LeaseId, LeaseStatus, Op, Revision, Txn, TxnResponse};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// Most transactions between two barriers.
const BATCH_TXNS: usize = 512;

/// Bytes of stored records after which no further transaction joins a batch.
const BATCH_BYTES: usize = 256 << 10;

/// Versions that are removed in one step.
const PURGE_STEP: usize = 128;

/// Records of the memory tier between two barriers when they are written back.
const WRITE_BACK_RECORDS: usize = 512;

type Answer<T> = oneshot::Sender<Result<T, Error>>;

pub enum Command {
    Txn(Txn, Answer<TxnResponse>),
    Compact(Revision, Answer<()>),
    Lease(LeaseCommand, Answer<Revision>),
    Defragment(Answer<()>),
    /// Write back what has been in memory for long.
    WriteBack,
    Close(Answer<()>),
}

/// A change of leases, on disk before it is answered.
pub enum LeaseCommand {
    Grant {
        id: LeaseId,
        seconds: u32,
    },
    Revoke(LeaseId),
    /// Note remaining seconds down; `None`: forget what was noted.
    Note(Vec<(LeaseId, Option<u32>)>),
}

pub struct Writer {
    pub shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    pub encoder: Encoder,
    /// Last revision given out; between batches the committed one.
    pub revision: u64,
    /// There may be something to remove.
    purging: bool,
    /// There may be space to give back.
    tidying: bool,
    /// Until when not to try to write the memory tier back, however full.
    pause: Option<Instant>,
}

/// How far a batch had come.
struct Mark {
    records: usize,
    kept: usize,
    keys: usize,
    events: usize,
    revision: u64,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> Self {
        let revision = shared.committed().0;
        Writer { shared, commands, encoder: Encoder::new(), revision, purging: true, tidying: true, pause: None }
    }

    pub fn run(mut self) {
        let mut met = None;
        while let Some(command) = met.take().or_else(|| self.next_command()) {
            match command {
                Command::Txn(txn, answer) => met = self.run_batch(txn, answer),
                Command::Compact(revision, answer) => reply(answer, self.compact(revision)),
                Command::Lease(change, answer) => reply(answer, self.change_lease(change)),
                Command::Defragment(answer) => reply(answer, self.defragment()),
                Command::WriteBack => self.write_back(),
                Command::Close(answer) => return self.close(Some(answer)),
            }
        }
        self.close(None);
    }

    /// The next command; while none waits, remove a step's worth of old versions, or give some space back.
    fn next_command(&mut self) -> Option<Command> {
        while self.purging || self.tidying {
            match self.commands.try_recv() {
                Ok(command) => return Some(command),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => self.clean(),
            }
        }
        self.commands.blocking_recv()
    }

    /// Commit this transaction together with those that wait behind it. Gives back the first other command met.
    fn run_batch(&mut self, txn: Txn, answer: Answer<TxnResponse>) -> Option<Command> {
        let mut batch = Batch::default();
        let mut taken = Vec::new();
        let mut other = None;
        let mut next = Some((txn, answer));
        while let Some((txn, answer)) = next.take() {
            let result = self.evaluate_txn(&mut batch, &txn);
            taken.push((txn, answer, result));
            if taken.len() < BATCH_TXNS && batch.bytes < BATCH_BYTES {
                match self.commands.try_recv() {
                    Ok(Command::Txn(txn, answer)) => next = Some((txn, answer)),
                    Ok(command) => other = Some(command),
                    Err(_) => {}
                }
            }
        }
        let committed = self.commit(batch);
        let again = matches!(committed, Err(Error::NoSpace(_))) && taken.len() > 1;
        for (txn, answer, result) in taken {
            let result = if again { self.run_alone(&txn) } else { committed.clone().and(result) };
            reply(answer, result);
        }
        self.tidying = true;
        if other.is_none() {
            self.clean();
        }
        if self.shared.volatile.read().is_full() && self.pause.is_none_or(|until| Instant::now() >= until) {
            self.write_back();
        }
        other
    }

    /// Commit one transaction by itself: on a full disk those that delete are not held up by those that put.
    fn run_alone(&mut self, txn: &Txn) -> Result<TxnResponse, Error> {
        let mut batch = Batch::default();
        let response = self.evaluate_txn(&mut batch, txn)?;
        self.commit(batch).map(|()| response)
    }

    fn evaluate_txn(&mut self, batch: &mut Batch, txn: &Txn) -> Result<TxnResponse, Error> {
        self.evaluate(batch, self.is_volatile(txn), |step| run(txn, step))
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.keys.is_empty() {
            return Ok(());
        }
        let durable = batch.records.last().map(|(place, _)| place.revision);
        let result = match self.needs_disk(&batch) {
            true => {
                let began = Instant::now();
                let fills = batch.records.iter().any(|(_, encoded)| !encoded.deletes());
                let result = self.persist(batch.records, !batch.kept.is_empty());
                self.shared.observe(began.elapsed(), fills, &result);
                result
            }
            false => Ok(()),
        };
        match result {
            Ok(()) => {
                let now = Instant::now();
                let mut volatile = self.shared.volatile.write();
                batch.kept.into_iter().for_each(|(place, kept)| volatile.insert(place, kept, now));
                drop(volatile);
                let mut values = self.shared.values.lock();
                batch.values.into_iter().for_each(|(place, value)| values.insert(place, value));
                drop(values);
                self.shared.set_committed(self.revision, durable);
                self.shared.hub.publish(Revision(self.revision), batch.events);
                Ok(())
            }
            Err(error) => {
                self.undo(&batch.keys);
                self.revision = self.shared.committed().0;
                Err(error)
            }
        }
    }

    fn undo(&mut self, keys: &[Key]) {
        let mut index = self.shared.index.write();
        keys.iter().rev().for_each(|key| index.undo(key));
    }

    /// Whether something of the batch has to be on disk before it is acknowledged.
    fn needs_disk(&self, batch: &Batch) -> bool {
        !batch.records.is_empty() || self.revision > self.shared.reserved() || self.shared.volatile.read().is_overfull()
    }

    /// Have records on disk. `volatile`: the batch has some that need not be, with revisions of their own.
    fn persist(&mut self, records: Vec<(Place, Encoded)>, volatile: bool) -> Result<(), Error> {
        let top = (volatile && self.revision > self.shared.reserved()).then_some(self.revision + RESERVED_REVISIONS);
        let reserved = top.map(|revision| Reserved { revision, clean: false });
        self.apply(Changes { records, notes: Notes { reserved, ..Notes::default() }, ..Changes::default() })?;
        if let Some(top) = top {
            self.shared.set_reserved(top);
        }
        Ok(())
    }

    fn apply(&mut self, changes: Changes) -> Result<(), Error> {
        self.mend()?;
        self.shared.engine.commit(changes)
    }

    fn mend(&self) -> Result<(), Error> {
        self.shared.with_above(|above| self.shared.engine.mend(above))
    }

    /// Write what is due of the memory tier to disk.
    fn write_back(&mut self) {
        if let Err(error) = self.write_back_now(false) {
            warn!(%error, "what is only in memory stays there for now");
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    /// `all`: also what has been superseded, so that watches can go on from any revision.
    fn write_back_now(&mut self, all: bool) -> Result<(), Error> {
        let shared = self.shared.clone();
        let due = {
            let index = shared.index.read();
            let is_current = |place, kept: &Kept| index.latest(&kept.key).is_some_and(|v| v.place() == place);
            shared.volatile.read().due(Instant::now(), all, is_current)
        };
        if due.is_empty() {
            return Ok(());
        }
        for part in due.chunks(WRITE_BACK_RECORDS) {
            let records: Vec<_> = part.iter().map(|(place, kept)| (*place, self.encode_kept(kept))).collect();
            self.apply(Changes { records, ..Changes::default() })?;
            let mut volatile = shared.volatile.write();
            for (place, _) in part {
                volatile.remove(*place);
            }
        }
        shared.volatile.write().written_back();
        Ok(())
    }

    fn encode_kept(&mut self, kept: &Kept) -> Encoded {
        let Kept { key, value, create, version } = kept;
        let (create, version) = (*create, *version);
        let write = Write { key, value: value.as_deref(), create, version, lease: LeaseId::NONE };
        self.encoder.encode(&write)
    }

    /// Whether all that a transaction may write belongs to the memory tier.
    fn is_volatile(&self, txn: &Txn) -> bool {
        let prefixes = self.shared.volatile_prefixes();
        !prefixes.is_empty() && is_within(txn, prefixes)
    }

    fn close(mut self, answer: Option<Answer<()>>) {
        self.commands.close();
        // What is left of leases counts on when the store is opened again. Without this they get their full time.
        let noted = self.note_all_leases();
        let released = self.write_back_now(true).and_then(|()| self.release());
        let result = self.shared.close().and(noted).and(released);
        if let Some(answer) = answer {
            reply(answer, result);
        }
    }

    /// Everything is on disk: give back the revisions that were reserved.
    fn release(&mut self) -> Result<(), Error> {
        if self.shared.reserved() == 0 {
            return Ok(());
        }
        let reserved = Some(Reserved { revision: self.revision, clean: true });
        self.apply(Changes { notes: Notes { reserved, ..Notes::default() }, ..Changes::default() })
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        check_compact(revision, Revision(self.revision), self.shared.compacted())?;
        let compacted = Some(revision.0);
        self.apply(Changes { notes: Notes { compacted, ..Notes::default() }, ..Changes::default() })?;
        self.shared.set_compacted(revision.0);
        self.purging = true;
        Ok(())
    }

    fn change_lease(&mut self, command: LeaseCommand) -> Result<Revision, Error> {
        let now = Instant::now();
        match command {
            LeaseCommand::Grant { id, seconds } => {
                self.shared.leases.check_new(id)?;
                let entry = LeaseEntry { granted: seconds, remaining: None };
                self.apply_leases(vec![(id, LeaseChange::Add(entry))])?;
                self.shared.leases.enter(id, seconds, None, Instant::now());
            }
            LeaseCommand::Revoke(id) => self.revoke(id)?,
            LeaseCommand::Note(notes) => {
                let granted = |id| self.shared.leases.status(id, now).ok().map(|lease| lease.granted);
                let note =
                    |(id, remaining)| Some((id, LeaseChange::Note(LeaseEntry { granted: granted(id)?, remaining })));
                self.apply_leases(notes.into_iter().filter_map(note).collect())?;
            }
        }
        Ok(Revision(self.revision))
    }

    fn apply_leases(&mut self, leases: Vec<(LeaseId, LeaseChange)>) -> Result<(), Error> {
        if leases.is_empty() {
            return Ok(());
        }
        self.apply(Changes { leases, ..Changes::default() })
    }

    /// Delete a lease's keys, then the lease: after a crash in between it is there without keys, and revoked again.
    fn revoke(&mut self, id: LeaseId) -> Result<(), Error> {
        self.shared.leases.status(id, Instant::now())?;
        let keys: Vec<Key> = self.shared.index.read().attached(id).cloned().collect();
        let mut batch = Batch::default();
        self.evaluate(&mut batch, false, |step| {
            keys.iter().try_for_each(|key| step.delete(&KeyRange::key(Bytes::copy_from_slice(key))).map(|_| ()))
        })?;
        self.commit(batch)?;
        self.apply_leases(vec![(id, LeaseChange::Remove)])?;
        self.shared.leases.remove(id);
        Ok(())
    }

    fn note_all_leases(&mut self) -> Result<(), Error> {
        let all = self.shared.leases.all(Instant::now());
        // At least a second: one that has not been seen to end has not ended.
        let note = |lease: &LeaseStatus| {
            let entry = LeaseEntry { granted: lease.granted, remaining: Some(lease.remaining.max(1)) };
            (lease.id, LeaseChange::Note(entry))
        };
        self.apply_leases(all.iter().map(note).collect())
    }

    /// Remove what compaction has left for later, and give back the space that nothing is in.
    fn defragment(&mut self) -> Result<(), Error> {
        self.purge_all()?;
        self.mend()?;
        self.shared.with_above(|above| self.shared.engine.defragment(above))
    }

    /// Remove at once what compaction has left for later.
    fn purge_all(&mut self) -> Result<(), Error> {
        self.purging = true;
        while self.purging {
            self.purge_step()?;
        }
        Ok(())
    }

    /// Remove some versions that nobody can ask for any more, and give some space back.
    fn clean(&mut self) {
        if self.purging {
            if let Err(error) = self.purge_step() {
                // Tried again after the next compaction.
                warn!(%error, "old revisions stay on disk for now");
                self.purging = false;
            }
        } else if self.tidying {
            let tidied = self.mend().and_then(|()| self.shared.engine.tidy());
            self.tidying = tidied.unwrap_or_else(|error| {
                // Tried again after the next write.
                warn!(%error, "space on disk is not given back for now");
                false
            });
        }
    }

    fn purge_step(&mut self) -> Result<(), Error> {
        self.mend()?;
        let shared = self.shared.clone();
        // The lock is held while the horizon is looked up: reads check and pin their revision under it.
        let gone = {
            let mut index = shared.index.write();
            let horizon = shared.horizon();
            index.purge(horizon, PURGE_STEP)
        };
        self.purging = gone.len() == PURGE_STEP;
        let on_disk = shared.forget(gone);
        if !on_disk.is_empty() {
            shared.engine.forget(&on_disk, self.purging)?;
        }
        Ok(())
    }

    /// Evaluate what writes (a transaction) against everything before it, also what is not committed yet. What it writes is
    /// added to the batch and the index; nothing of it if it fails.
    fn evaluate<T>(
        &mut self,
        batch: &mut Batch,
        in_memory: bool,
        work: impl FnOnce(&mut Step<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mark = Mark {
            records: batch.records.len(),
            kept: batch.kept.len(),
            keys: batch.keys.len(),
            events: batch.events.len(),
            revision: self.revision,
        };
        let place = Place { revision: self.revision + 1, sub: 0 };
        let result = work(&mut Step { writer: self, batch, place, in_memory });
        match &result {
            Ok(_) => {}
            Err(_) => {
                self.undo(&batch.keys[mark.keys..]);
                batch.keys.truncate(mark.keys);
                batch.events.truncate(mark.events);
                for (place, _) in batch.kept.drain(mark.kept..) {
                    batch.values.remove(&place);
                }
                for (place, encoded) in batch.records.drain(mark.records..) {
                    batch.bytes -= encoded.stored();
                    batch.values.remove(&place);
                }
                self.revision = mark.revision;
            }
        }
        result
    }
}

/// Whether nothing but keys with one of these prefixes, attached to no lease, is written in any branch.
fn is_within(txn: &Txn, prefixes: &[Bytes]) -> bool {
    let within = |range: &KeyRange| prefixes.iter().any(|prefix| range.is_within(prefix));
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Put(put) => put.lease == Some(LeaseId::NONE) && within(&KeyRange::key(put.key.clone())),
        Op::Delete(range) => within(range),
        Op::Range(_) => true,
        Op::Txn(inner) => is_within(inner, prefixes),
    })
}

/// Who asked may have gone.
fn reply<T>(answer: Answer<T>, result: Result<T, Error>) {
    let _ = answer.send(result);
}
