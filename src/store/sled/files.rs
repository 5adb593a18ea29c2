//! What sled leaves to its user: room for the next write, and what a crash leaves behind.

use crate::durable;
use crate::store::Error;
use crate::store::local::directory::failed;
use crate::store::local::engine::Purpose;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use tracing::debug;

/// Room that is claimed beyond the end of the database file at a time.
const RESERVE_STEP_BYTES: u64 = 4 << 20;

/// Room that writes which fill the store leave to those that empty it.
const LAST_ROOM_BYTES: u64 = 8 << 20;

/// Room that is kept for opening the store on a full disk: sled writes a snapshot and into a new segment then.
const START_ROOM_BYTES: u64 = 4 << 20;

/// What must be writable before sled is opened again after an error.
const PROBE_BYTES: usize = 2 << 20;

/// The directory that sled has for itself.
pub struct Files {
    path: PathBuf,
}

impl Files {
    pub fn new(path: &Path) -> Self {
        Files { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keep room for the next start, if there is any.
    pub fn keep_room(&self) {
        let work = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.room())?;
            Ok(fallocate(&file, FallocateFlags::empty(), 0, START_ROOM_BYTES as libc::off_t)?)
        };
        if let Err(error) = work() {
            debug!(%error, "no room is kept for a start on a full disk");
        }
    }

    /// Give that room back. Whether there was any.
    pub fn give_room(&self) -> bool {
        fs::remove_file(self.room()).is_ok()
    }

    fn room(&self) -> PathBuf {
        self.path.join("room")
    }

    /// Whether sled could be opened now: that takes room for a snapshot and the rest of a segment, in files as long as
    /// its own. Nothing of sled's is touched.
    pub fn probe(&self) -> Result<(), Error> {
        let path = self.path.join("probe");
        let work = || -> io::Result<()> {
            let length = fs::metadata(self.path.join("db"))?.len();
            let file = File::create(&path)?;
            file.write_all_at(&vec![1; PROBE_BYTES], length)?;
            file.sync_data()
        };
        let result = work().map_err(|e| failed("trying to write", &path, &e));
        let _ = fs::remove_file(&path);
        result
    }

    /// Bytes that sled takes on disk.
    pub fn bytes(&self) -> u64 {
        let size = |path: &Path| -> u64 {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.metadata().ok()).filter(|m| m.is_file()).map(|m| m.blocks() * 512).sum()
        };
        size(&self.path) + size(&self.path.join("blobs"))
    }

    /// To be done before sled opens its files. Half-written snapshots would be taken for the newest ones, and a
    /// snapshot that sled takes on open must not refer to bytes that the last process wrote but never synced.
    pub fn prepare(&self) -> Result<(), Error> {
        let sled = &self.path;
        durable::create_dir(sled, 0o700).map_err(|e| failed("creating the store's directory", sled, &e))?;
        let work = || -> io::Result<()> {
            for entry in fs::read_dir(sled)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(".generating") {
                    fs::remove_file(entry.path())?;
                }
            }
            match File::open(sled.join("db")) {
                Ok(file) => file.sync_all(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        };
        work().map_err(|e| failed("preparing the store's files", sled, &e))
    }

    /// To be done after sled has opened (and perhaps created) its files: make them and their names durable.
    pub fn settle(&self) -> Result<Database, Error> {
        let sled = &self.path;
        let work = || -> io::Result<Database> {
            File::open(sled.join("conf"))?.sync_all()?;
            let file = OpenOptions::new().read(true).write(true).open(sled.join("db"))?;
            file.sync_all()?;
            File::open(sled.join("blobs"))?.sync_all()?;
            File::open(sled)?.sync_all()?;
            File::open(sled.parent().unwrap_or(sled))?.sync_all()?;
            Ok(Database { file, path: sled.clone(), reserved: Mutex::default() })
        };
        work().map_err(|e| failed("syncing the store's files", sled, &e))
    }
}

/// sled's database file, held open beside sled to claim room for it.
pub struct Database {
    file: File,
    path: PathBuf,
    reserved: Mutex<Reserved>,
}

#[derive(Default)]
struct Reserved {
    /// The file's length when room was last claimed.
    length: u64,
    /// Claimed up to here.
    end: u64,
}

impl Database {
    /// Claim room for `bytes` more at the end of the file, so that the writes to come cannot meet a full disk in the
    /// middle: sled does not get over that without being opened again.
    pub fn reserve(&self, bytes: u64, purpose: Purpose) -> Result<(), Error> {
        let needed = match purpose {
            Purpose::Fill => bytes + LAST_ROOM_BYTES,
            Purpose::Empty => bytes,
        };
        let mut reserved = self.reserved.lock();
        let length = self.file.metadata().map_err(|e| failed("measuring the store", &self.path, &e))?.len();
        // Shrinking the file gave the room behind it back.
        if length < reserved.length {
            reserved.end = 0;
        }
        reserved.length = length;
        if length + needed <= reserved.end {
            return Ok(());
        }
        for room in [bytes + LAST_ROOM_BYTES + RESERVE_STEP_BYTES, needed] {
            match self.claim(length, room) {
                Ok(()) => {
                    reserved.end = length + room;
                    return Ok(());
                }
                Err(Errno::ENOSPC | Errno::EDQUOT) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return self.check_free(needed),
                Err(other) => return Err(failed("claiming disk space", &self.path, &other.into())),
            }
        }
        Err(Error::NoSpace(format!("{}: {bytes} bytes are needed", self.path.display())))
    }

    /// Give back what was claimed and not used. Nothing may be written meanwhile.
    pub fn release(&self) -> Result<(), Error> {
        self.reserved.lock().end = 0;
        // Setting the length that it has frees what is behind it.
        let release = || self.file.set_len(self.file.metadata()?.len());
        release().map_err(|e| failed("giving space back", &self.path, &e))
    }

    fn claim(&self, from: u64, bytes: u64) -> nix::Result<()> {
        let (from, bytes) = (from as libc::off_t, bytes as libc::off_t);
        fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, bytes)
    }

    fn check_free(&self, bytes: u64) -> Result<(), Error> {
        let stat = nix::sys::statvfs::fstatvfs(&self.file)
            .map_err(|e| failed("measuring free disk space", &self.path, &e.into()))?;
        let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
        if free >= bytes {
            return Ok(());
        }
        Err(Error::NoSpace(format!("{}: {free} bytes are free", self.path.display())))
    }
}
