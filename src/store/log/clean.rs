//! Giving space back: what is still needed of the oldest segment is written again at the end, and the segment dropped.

use super::frame::Frame;
use super::segment::{Slot, Window};
use super::{Location, Log, Room, SPARES, Tail, checked};
use crate::store::Error;
use crate::store::local::engine::damaged;
use crate::store::local::record::Place;
use std::collections::VecDeque;
use std::sync::Arc;
use tracing::debug;

/// The log may take so many times the bytes of the records in it …
pub const GARBAGE_FACTOR: u64 = 2;

/// … and so many segments beyond.
const GARBAGE_SEGMENTS: u64 = 2;

/// Bytes of records that are written again in one step.
const STEP_BYTES: usize = 256 << 10;

/// The segment that is being emptied.
pub struct Cleaning {
    segment: u32,
    /// Its records when that began, by their place in it.
    left: VecDeque<Place>,
    window: Window,
}

impl Log {
    /// A step, if there is reason to: claim room that a full disk will lack, or clean. Whether there is more to do at once.
    pub(super) fn clean(&self, tail: &mut Tail) -> Result<bool, Error> {
        if tail.spares.len() < SPARES && !tail.pressed {
            match self.new_spare(tail, self.segment_bytes()) {
                Ok(slot) => tail.spares.push(slot),
                Err(Error::NoSpace(_)) => tail.pressed = true,
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
        if tail.cleaning.is_none() && !self.has_reason(tail) {
            return Ok(false);
        }
        match self.clean_step(tail) {
            Ok(()) => Ok(tail.cleaning.is_some() || self.has_reason(tail)),
            // A full disk is told of by those who write.
            Err(Error::NoSpace(_)) => Ok(false),
            Err(error) => {
                tail.stuck = matches!(error, Error::Damaged(_));
                Err(error)
            }
        }
    }

    /// Write every record again that has garbage before it, and keep no more spares than needed.
    pub(super) fn clean_all(&self, tail: &mut Tail) -> Result<(), Error> {
        let last = tail.next.segment();
        while self.garbage(tail) > self.segment_bytes() / 2 && self.oldest().is_some_and(|oldest| oldest < last) {
            self.clean_step(tail)?;
        }
        while tail.spares.len() > SPARES
            && let Some(slot) = tail.spares.pop()
        {
            self.remove(&slot);
        }
        Ok(())
    }

    fn has_reason(&self, tail: &Tail) -> bool {
        let (segment, garbage) = (self.segment_bytes(), self.garbage(tail));
        if tail.stuck || self.oldest().is_none_or(|oldest| oldest >= tail.next.segment()) {
            return false;
        }
        // On a full disk all that is worth a segment.
        let live = self.table.read().live;
        garbage > live * (GARBAGE_FACTOR - 1) + GARBAGE_SEGMENTS * segment || (tail.pressed && garbage > segment)
    }

    /// Bytes of segments that no record is in.
    fn garbage(&self, tail: &Tail) -> u64 {
        let table = self.table.read();
        let newest = tail.next.segment();
        let full: u64 =
            table.segments.iter().filter(|(number, _)| **number != newest).map(|(_, slot)| slot.length).sum();
        (full + tail.next.at).saturating_sub(table.live)
    }

    fn oldest(&self) -> Option<u32> {
        self.table.read().segments.keys().next().copied()
    }

    fn clean_step(&self, tail: &mut Tail) -> Result<(), Error> {
        let mut cleaning = match tail.cleaning.take() {
            Some(cleaning) => cleaning,
            None => match self.oldest() {
                Some(segment) => Cleaning { segment, left: self.places_in(segment), window: Window::default() },
                None => return Ok(()),
            },
        };
        self.write_again(tail, &mut cleaning)?;
        match cleaning.left.is_empty() {
            true => self.drop_segment(tail, cleaning.segment),
            false => {
                tail.cleaning = Some(cleaning);
                Ok(())
            }
        }
    }

    fn places_in(&self, segment: u32) -> VecDeque<Place> {
        let table = self.table.read();
        let here = table.records.iter().filter(|(_, location)| location.segment == segment);
        let mut places: Vec<(u32, Place)> = here.map(|(place, location)| (location.at, *place)).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// Write some of its records again, and have readers find them there.
    fn write_again(&self, tail: &mut Tail, cleaning: &mut Cleaning) -> Result<(), Error> {
        let mut frame = Frame::new(std::mem::take(&mut tail.buffer));
        let (mut moved, mut bytes) = (Vec::new(), 0);
        while bytes < STEP_BYTES
            && let Some(place) = cleaning.left.pop_front()
        {
            // It may have been forgotten meanwhile.
            let Some((location, slot)) = self.table.read().find(place) else { continue };
            let read = cleaning.window.read(&slot, location.at.into(), 4 + location.length as usize)?;
            let record = checked(read).ok_or_else(|| damaged(place))?;
            moved.push((place, frame.record(place, crc32fast::hash(record), record), location.length));
            bytes += record.len();
        }
        if moved.is_empty() {
            return Ok(());
        }
        let (segment, at) = self.append(tail, frame, Room::Clean)?;
        let mut table = self.table.write();
        for (place, offset, length) in moved {
            table.insert(place, Location { segment, at: (at + offset as u64) as u32, length });
        }
        Ok(())
    }

    /// Once the disk knows that a segment is not needed, its file can be used again.
    fn drop_segment(&self, tail: &mut Tail, segment: u32) -> Result<(), Error> {
        let oldest = tail.oldest;
        // What was removed from it or before must not come back.
        let mut frame = Frame::new(Vec::new());
        tail.gone.iter().for_each(|place| frame.gone(*place));
        tail.oldest = u64::from(segment) + 1;
        frame.oldest(tail.oldest);
        if let Err(error) = self.append(tail, frame, Room::Clean) {
            tail.oldest = oldest;
            return Err(error);
        }
        tail.gone = Vec::new();
        let dropped = self.table.write().segments.remove(&segment);
        debug!(segment, "a segment of the store is not needed any more");
        // Whoever still reads from it has it until then.
        match dropped.map(Arc::try_unwrap) {
            Some(Ok(slot)) if tail.spares.len() < SPARES + 1 && slot.length == self.segment_bytes() => {
                tail.spares.push(Slot { used: true, ..slot });
                tail.pressed = false;
            }
            Some(Ok(slot)) => self.remove(&slot),
            Some(Err(shared)) => self.remove(&shared),
            None => {}
        }
        Ok(())
    }
}
