//! The store under power loss. This executable answers the system calls that write to the store's file itself, notes
//! them, and passes them on. From the notes the file is put together as a disk might hold it after the power went at
//! some moment: everything before the last barrier, and of what was written since, any sectors in any order. On each
//! such file the store must open and hold all that was acknowledged.

mod store_common;

use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use store_common::{Acknowledged, check, open, write};

const SECTOR: usize = 512;
const WRITERS: u64 = 8;
const STEPS: u64 = 250;
/// How many moments are tried; `KEDGE_TRIALS` overrides.
const TRIALS: usize = 60;
/// sled's segments: their headers tell what of the log is durable.
const SEGMENT: usize = 512 << 10;

/// What happened to the file, in order.
enum Note {
    Write(usize, Vec<u8>),
    Truncate(usize),
    /// Everything before is on the disk.
    Barrier,
    Acknowledged(String, u64, u64),
}

/// The file that is watched, with links resolved.
static FILE: RwLock<Option<PathBuf>> = RwLock::new(None);
static NOTES: Mutex<Vec<Note>> = Mutex::new(Vec::new());

/// Pass a system call on; if it is about the watched file and works, note it. Calls are noted in the order in which they
/// happen, because they happen one after the other.
fn pass(fd: c_int, call: impl FnOnce() -> i64, note: impl FnOnce(i64) -> Option<Note>) -> i64 {
    let watched = match &*FILE.read() {
        Some(file) => std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|path| path == *file),
        None => false,
    };
    if !watched {
        return call();
    }
    let mut notes = NOTES.lock();
    let result = call();
    if result >= 0 {
        notes.extend(note(result));
    }
    result
}

/// # Safety
/// As the C library's: `bytes` points to `length` readable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: usize, offset: i64) -> isize {
    let call = || {
        // SAFETY: passed on as it came.
        unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, length, offset) }
    };
    let note = |written: i64| {
        // SAFETY: the caller promises `length` bytes, of which at most that many were written.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written as usize) };
        Some(Note::Write(offset as usize, bytes.to_vec()))
    };
    pass(fd, call, note) as isize
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: takes no pointers.
    pass(fd, || unsafe { libc::syscall(libc::SYS_fdatasync, fd) }, |_| Some(Note::Barrier)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: takes no pointers.
    pass(fd, || unsafe { libc::syscall(libc::SYS_fsync, fd) }, |_| Some(Note::Barrier)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    // SAFETY: takes no pointers.
    let call = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) };
    pass(fd, call, |_| Some(Note::Truncate(length as usize))) as c_int
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_nothing_acknowledged() {
    let scratch = tempfile::tempdir().expect("scratch");
    let original = scratch.path().canonicalize().expect("path").join("original");
    *FILE.write() = Some(original.join("store/sled/db"));
    let store = open(&original);
    let opened = NOTES.lock().len();
    let acknowledge = |key: &str, step, revision| NOTES.lock().push(Note::Acknowledged(key.into(), step, revision));
    let writers = (0..WRITERS).map(|writer| write(&*store, writer, 1..STEPS, acknowledge));
    futures::future::join_all(writers).await;
    *FILE.write() = None;
    let notes = std::mem::take(&mut *NOTES.lock());
    let barriers = notes.iter().filter(|note| matches!(note, Note::Barrier)).count();
    assert!(opened > 0 && barriers > STEPS as usize / 2, "{} notes, {barriers} barriers", notes.len());

    let mut random = StdRng::seed_from_u64(1);
    let mut disk = Disk::default();
    let moments = moments(&notes, opened, &mut random);
    for (trial, moment) in moments.into_iter().enumerate() {
        disk.play(&notes, moment);
        // From nothing to almost everything of what was under way.
        let survives = [0.0, 0.1, 0.5, 0.9, 0.99][trial % 5];
        let file = disk.after_power_loss(&notes[disk.barrier..moment], survives, &mut random);
        let copy = scratch.path().join("copy");
        lay_out(&original, &copy, &file);
        let rest = moment - disk.barrier;
        println!("trial {trial}: {moment} of {} notes, {survives} of the last {rest} survives", notes.len());
        check(&copy, &disk.acknowledged).await;
        std::fs::remove_dir_all(&copy).expect("removes");
    }
    store.close().await.expect("closes");
}

/// When the power goes: while something is being written, and as often while a segment is begun.
fn moments(notes: &[Note], opened: usize, random: &mut StdRng) -> Vec<usize> {
    let trials = std::env::var("KEDGE_TRIALS").ok().and_then(|trials| trials.parse().ok()).unwrap_or(TRIALS);
    let after = |wanted: fn(&Note) -> bool| -> Vec<usize> {
        (opened..notes.len()).filter(|&at| wanted(&notes[at])).map(|at| at + 1).collect()
    };
    let writes = after(|note| matches!(note, Note::Write(..)));
    let beginnings = after(|note| matches!(note, Note::Write(offset, _) if offset.is_multiple_of(SEGMENT)));
    let mut moment = |trial: usize| {
        let among = if trial.is_multiple_of(2) && !beginnings.is_empty() { &beginnings } else { &writes };
        among[random.random_range(0..among.len())]
    };
    let mut moments: Vec<usize> = (0..trials).map(&mut moment).collect();
    moments.sort_unstable();
    moments
}

/// What is on the disk for sure.
#[derive(Default)]
struct Disk {
    file: Vec<u8>,
    /// Notes up to here are in `file`.
    barrier: usize,
    /// Notes up to here are in `acknowledged`.
    heard: usize,
    acknowledged: Acknowledged,
}

impl Disk {
    fn play(&mut self, notes: &[Note], moment: usize) {
        let barrier = notes[..moment].iter().rposition(|note| matches!(note, Note::Barrier)).map_or(0, |at| at + 1);
        for note in &notes[self.barrier..barrier.max(self.barrier)] {
            apply(&mut self.file, note, || true);
        }
        self.barrier = barrier.max(self.barrier);
        for note in &notes[self.heard..moment] {
            if let Note::Acknowledged(key, step, revision) = note {
                self.acknowledged.insert(key.clone(), (*step, *revision));
            }
        }
        self.heard = moment;
    }

    fn after_power_loss(&self, rest: &[Note], survives: f64, random: &mut StdRng) -> Vec<u8> {
        let mut file = self.file.clone();
        for note in rest {
            apply(&mut file, note, || random.random_bool(survives));
        }
        file
    }
}

/// Apply a note, each sector of it only if it survives.
fn apply(file: &mut Vec<u8>, note: &Note, mut survives: impl FnMut() -> bool) {
    match note {
        Note::Write(offset, bytes) => {
            let mut at = 0;
            while at < bytes.len() {
                let (from, room) = (offset + at, SECTOR - (offset + at) % SECTOR);
                let piece = &bytes[at..bytes.len().min(at + room)];
                if survives() {
                    file.resize(file.len().max(from + piece.len()), 0);
                    file[from..from + piece.len()].copy_from_slice(piece);
                }
                at += piece.len();
            }
        }
        Note::Truncate(length) if survives() => file.resize(*length, 0),
        Note::Truncate(_) | Note::Barrier | Note::Acknowledged(..) => {}
    }
}

/// A copy of the store's directory around another database file.
fn lay_out(original: &Path, copy: &Path, file: &[u8]) {
    let (from, to) = (original.join("store/sled"), copy.join("store/sled"));
    std::fs::create_dir_all(to.join("blobs")).expect("creates");
    for entry in std::fs::read_dir(&from).expect("lists") {
        let entry = entry.expect("entry");
        if entry.file_type().expect("type").is_file() && entry.file_name() != "db" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
        }
    }
    std::fs::write(to.join("db"), file).expect("writes");
}
