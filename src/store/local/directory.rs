//! The directory of a store: who uses it, which engine's files are in it, and how others are put in their place.

use super::engine::Kind;
use crate::durable;
use crate::store::Error;
use crate::store::condition::Loss;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Damaged files that were set aside: the beginning of their directories' names, and how many stay.
const DAMAGED: &str = "damaged-";
const KEEP_DAMAGED: usize = 2;

const LOSSES: &str = "losses.json";

/// The directory of one store, locked.
pub struct Directory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Directory {
    /// Create the directory if there is none, and lock it against other processes.
    pub fn open(path: &Path) -> Result<Self, Error> {
        durable::create_dir(path, 0o700).map_err(|e| failed("creating the store's directory", path, &e))?;
        let lock_path = path.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|e| failed("opening the store's directory", path, &e))?;
        let mut owner = String::new();
        file.read_to_string(&mut owner).map_err(|e| failed("opening the store's directory", &lock_path, &e))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Error::Failed {
                step: "locking the store's directory",
                message: format!("{} is in use by another process (pid {})", path.display(), owner.trim()),
            },
            other => failed("locking the store's directory", path, &other.into()),
        })?;
        let write = lock.set_len(0).and_then(|()| write!(&mut *lock, "{}", std::process::id()));
        write.map_err(|e| failed("locking the store's directory", &lock_path, &e))?;
        let directory = Directory { path: path.to_owned(), _lock: lock };
        directory.end_swap().map_err(|e| failed("opening the store's directory", path, &e))?;
        Ok(directory)
    }

    /// Where an engine keeps its files.
    pub fn files(&self, kind: Kind) -> PathBuf {
        self.path.join(kind.name())
    }

    /// The engine whose files are here; `None`: there are none yet.
    pub fn current(&self) -> Result<Option<Kind>, Error> {
        let mut found = Kind::ALL.into_iter().filter(|kind| self.files(*kind).exists());
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(Error::Damaged(format!("{}: files of two engines are here; move one away", self.path.display()))),
        }
    }

    /// Put what was made in the place of the files that are there, which are removed. Nobody has either open.
    pub fn swap(&self, made: &Path, old: Kind, new: Kind) -> Result<(), Error> {
        let work = || -> io::Result<()> {
            fs::rename(self.files(old), self.before(old))?;
            fs::rename(made, self.files(new))?;
            durable::sync_dir(&self.path)
        };
        // After an error the old files may be away; what is whole of the two is put there.
        let swapped = work();
        let ended = self.end_swap();
        swapped.and(ended).map_err(|e| failed("putting new files in the place of the store's", &self.path, &e))
    }

    /// After a crash in the middle of [`Directory::swap`]: nothing is there, and the old files are taken again, or both
    /// are, and the old ones go.
    fn end_swap(&self) -> io::Result<()> {
        // Its name in older versions.
        let unnamed = self.path.join("before");
        if unnamed.exists() {
            fs::rename(unnamed, self.before(Kind::Sled))?;
        }
        let is_there = Kind::ALL.into_iter().any(|kind| self.files(kind).exists());
        for kind in Kind::ALL {
            let before = self.before(kind);
            match (before.exists(), is_there) {
                (false, _) => {}
                (true, true) => fs::remove_dir_all(before)?,
                (true, false) => fs::rename(before, self.files(kind)).and_then(|()| durable::sync_dir(&self.path))?,
            }
        }
        Ok(())
    }

    fn before(&self, kind: Kind) -> PathBuf {
        self.path.join(format!("before-{}", kind.name()))
    }

    /// Where new files are made that are to take the place of others; empty.
    pub fn restoring(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("restoring");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("making new files", &path, &error)),
            _ => Ok(path),
        }
    }

    /// Put what was made in the place of damaged files. Gives where those are now; of earlier ones the newest stay.
    pub fn replace(&self, made: &Path, old: Kind, new: Kind) -> Result<PathBuf, Error> {
        let kept = self.path.join(format!("{DAMAGED}{}", crate::time::now_seconds()));
        let work = || -> io::Result<()> {
            let mut earlier: Vec<PathBuf> = fs::read_dir(&self.path)?.flatten().map(|entry| entry.path()).collect();
            earlier.retain(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(DAMAGED)));
            earlier.sort();
            for old in earlier.iter().rev().skip(KEEP_DAMAGED - 1).chain(earlier.iter().filter(|path| **path == kept)) {
                fs::remove_dir_all(old)?;
            }
            fs::rename(self.files(old), &kept)?;
            fs::rename(made, self.files(new))?;
            durable::sync_dir(&self.path)
        };
        work().map_err(|e| failed("repairing the store", &self.path, &e))?;
        Ok(kept)
    }

    pub fn mark(&self) -> PathBuf {
        self.path.join("mark")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Losses on record.
    pub fn losses(&self) -> Vec<Loss> {
        let text = fs::read(self.path.join(LOSSES)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub fn add_loss(&self, loss: Loss) -> Result<(), Error> {
        let path = self.path.join(LOSSES);
        let mut losses = self.losses();
        losses.push(loss);
        let work = || durable::write(&path, &serde_json::to_vec_pretty(&losses)?, durable::SECRET);
        work().map_err(|e| failed("recording a loss", &path, &e))
    }
}

/// A store error from an I/O error, naming the path.
pub fn failed(step: &'static str, path: &Path, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace(format!("{}: {error}", path.display())),
        _ => Error::Failed { step, message: format!("{}: {error}", path.display()) },
    }
}
