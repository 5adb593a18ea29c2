//! A segment: one file of the log, with its room claimed beforehand.

use super::frame::BLOCK;
use crate::durable;
use crate::store::Error;
use crate::store::local::directory::failed;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file of the log, in use or spare.
pub struct Slot {
    pub file: File,
    pub path: PathBuf,
    /// Bytes.
    pub length: u64,
    /// It was a segment before, so all of it has been written.
    pub used: bool,
}

const EXTENSION: &str = "seg";

impl Slot {
    /// A new file of so many bytes, durably there. [`Error::NoSpace`] leaves nothing behind.
    pub fn create(directory: &Path, name: u64, length: u64) -> Result<Slot, Error> {
        let path = directory.join(format!("{name:06}.{EXTENSION}"));
        let work = || -> io::Result<Slot> {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            match fallocate(&file, FallocateFlags::empty(), 0, length as libc::off_t) {
                // Such a file system cannot promise room: a full disk shows when it is written to.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => file.set_len(length)?,
                other => other?,
            }
            file.sync_all()?;
            durable::sync_dir(directory)?;
            Ok(Slot { file, path: path.clone(), length, used: false })
        };
        work().map_err(|error| {
            let _ = fs::remove_file(&path);
            failed("claiming disk space for the store", &path, &error)
        })
    }

    /// All that are in a directory, with the highest number in their names.
    pub fn all(directory: &Path) -> Result<(Vec<Slot>, u64), Error> {
        let (mut slots, mut highest) = (Vec::new(), 0);
        let entries = fs::read_dir(directory).map_err(|e| failed("opening the store's files", directory, &e))?;
        for entry in entries {
            let path = entry.map_err(|e| failed("opening the store's files", directory, &e))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let (Some(number), true) = (number, path.extension().is_some_and(|e| e == EXTENSION)) else { continue };
            highest = highest.max(number);
            let open = || -> io::Result<Slot> {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                let length = file.metadata()?.len();
                Ok(Slot { file, path: path.clone(), length, used: false })
            };
            slots.push(open().map_err(|e| failed("opening the store's files", &path, &e))?);
        }
        Ok((slots, highest))
    }

    /// Write, and wait until the disk has it.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        let work = || self.file.write_all_at(bytes, at).and_then(|()| self.file.sync_data());
        work().map_err(|e| failed("writing to the store", &self.path, &e))
    }

    /// Have no frame at a place.
    pub fn erase(&self, at: u64) -> Result<(), Error> {
        self.write(&[0; BLOCK], at)
    }

    pub fn remove(&self) {
        // What stays is found to be spare the next time.
        let _ = fs::remove_file(&self.path);
    }

    /// How far behind a place the file has been written, as far as the file system tells.
    pub fn written_from(&self, at: u64) -> u64 {
        let hole = nix::unistd::lseek(&self.file, at as libc::off_t, nix::unistd::Whence::SeekHole);
        hole.map_or(at, |hole| (hole as u64).clamp(at, self.length))
    }

    fn failed_read(&self, error: &io::Error) -> Error {
        match error.raw_os_error() {
            // It ends too early, or the disk cannot read it.
            None | Some(libc::EIO) => Error::Damaged(format!("{}: {error}", self.path.display())),
            Some(_) => failed("reading the store", &self.path, error),
        }
    }

    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| self.failed_read(&e))?;
        Ok(bytes)
    }
}

/// Bytes that a reader of what lies together reads at once, at least.
const WINDOW_BYTES: usize = 128 << 10;

/// Reads one place after the other, most of them close together.
#[derive(Default)]
pub struct Window {
    bytes: Vec<u8>,
    at: u64,
}

impl Window {
    /// So many bytes at a place; fewer at the end of the file.
    pub fn read(&mut self, slot: &Slot, at: u64, length: usize) -> Result<&[u8], Error> {
        let inside = |window: &Window| {
            let from = usize::try_from(at.checked_sub(window.at)?).ok()?;
            (from + length <= window.bytes.len()).then_some(from)
        };
        let from = match inside(self) {
            Some(from) => from,
            None => {
                self.fill(slot, at, length)?;
                0
            }
        };
        Ok(&self.bytes[from..self.bytes.len().min(from + length)])
    }

    fn fill(&mut self, slot: &Slot, at: u64, length: usize) -> Result<(), Error> {
        let left = usize::try_from(slot.length.saturating_sub(at)).unwrap_or(usize::MAX);
        self.bytes.clear();
        self.bytes.resize(length.max(WINDOW_BYTES).min(left), 0);
        self.at = at;
        let mut filled = 0;
        while filled < self.bytes.len() {
            match slot.file.read_at(&mut self.bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.clear();
                    return Err(slot.failed_read(&error));
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// To be called before another file is read.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }
}
