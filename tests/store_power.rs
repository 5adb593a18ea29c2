//! The store under power loss. This executable answers the system calls that write to the store's files itself, notes
//! them, and passes them on. From the notes the files are put together as a disk might hold them after the power went at
//! some moment: everything before each one's last barrier, and of what was written since, any sectors in any order. On
//! such files the store must open and hold all that was acknowledged.

mod store_common;

use kedge::store::local::engine::Kind;
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use store_common::{Acknowledged, check, open_with, write};

const SECTOR: usize = 512;
const WRITERS: u64 = 8;
const STEPS: u64 = 250;
/// How many moments are tried; `KEDGE_TRIALS` overrides.
const TRIALS: usize = 60;
/// sled's segments: their headers tell what of the log is durable. The log's are files.
const SLED_SEGMENT: usize = 512 << 10;

/// What happened to the files, in order.
enum Note {
    /// Name, length of the file, where, what.
    Write(String, usize, usize, Vec<u8>),
    Truncate(String, usize),
    /// Everything before in this file is on the disk.
    Barrier(String),
    Acknowledged(String, u64, u64),
}

/// The directory whose files are watched, with links resolved.
static WATCHED: RwLock<Option<PathBuf>> = RwLock::new(None);
static NOTES: Mutex<Vec<Note>> = Mutex::new(Vec::new());

/// Pass a system call on; if it is about a watched file and works, note it. Calls are noted in the order in which they
/// happen, because they happen one after the other.
fn pass(fd: c_int, call: impl FnOnce() -> i64, note: impl FnOnce(i64, String) -> Note) -> i64 {
    let watched = WATCHED.read().as_ref().and_then(|directory| {
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        (path.parent()? == directory).then(|| path.file_name().map(|name| name.to_string_lossy().into_owned()))?
    });
    let Some(name) = watched else { return call() };
    let mut notes = NOTES.lock();
    let result = call();
    if result >= 0 {
        notes.push(note(result, name));
    }
    result
}

fn length_of(fd: c_int) -> usize {
    std::fs::metadata(format!("/proc/self/fd/{fd}")).map_or(0, |metadata| metadata.len() as usize)
}

/// # Safety
/// As the C library's: `bytes` points to `length` readable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: usize, offset: i64) -> isize {
    let call = || {
        // SAFETY: passed on as it came.
        unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, length, offset) }
    };
    let note = |written: i64, name: String| {
        // SAFETY: the caller promises `length` bytes, of which at most that many were written.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written as usize) };
        Note::Write(name, length_of(fd), offset as usize, bytes.to_vec())
    };
    pass(fd, call, note) as isize
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: takes no pointers.
    pass(fd, || unsafe { libc::syscall(libc::SYS_fdatasync, fd) }, |_, name| Note::Barrier(name)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: takes no pointers.
    pass(fd, || unsafe { libc::syscall(libc::SYS_fsync, fd) }, |_, name| Note::Barrier(name)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    // SAFETY: takes no pointers.
    let call = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) };
    pass(fd, call, |_, name| Note::Truncate(name, length as usize)) as c_int
}

/// One at a time: what is watched is the process's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_nothing_acknowledged() {
    for engine in Kind::ALL {
        power_loss(engine).await;
    }
}

async fn power_loss(engine: Kind) {
    let scratch = tempfile::tempdir().expect("scratch");
    let original = scratch.path().canonicalize().expect("path").join("original");
    *WATCHED.write() = Some(original.join("store").join(engine.name()));
    let store = open_with(&original, engine);
    let opened = NOTES.lock().len();
    let acknowledge = |key: &str, step, revision| NOTES.lock().push(Note::Acknowledged(key.into(), step, revision));
    let writers = (0..WRITERS).map(|writer| write(&*store, writer, 1..STEPS, acknowledge));
    futures::future::join_all(writers).await;
    *WATCHED.write() = None;
    let notes = std::mem::take(&mut *NOTES.lock());
    let barriers = notes.iter().filter(|note| matches!(note, Note::Barrier(_))).count();
    assert!(opened > 0 && barriers > STEPS as usize / 2, "{} notes, {barriers} barriers", notes.len());

    let mut random = StdRng::seed_from_u64(1);
    let mut disk = Disk::default();
    let moments = moments(engine, &notes, opened, &mut random);
    for (trial, moment) in moments.into_iter().enumerate() {
        disk.play(&notes, moment);
        // From nothing to almost everything of what was under way.
        let survives = [0.0, 0.1, 0.5, 0.9, 0.99][trial % 5];
        let files = disk.after_power_loss(&notes, survives, &mut random);
        let copy = scratch.path().join("copy");
        lay_out(engine, &original, &copy, &files);
        let rest = disk.pending.len();
        println!("{engine:?} trial {trial}: {moment} of {} notes, {survives} of the last {rest} survives", notes.len());
        check(&copy, &disk.acknowledged).await;
        std::fs::remove_dir_all(&copy).expect("removes");
    }
    store.close().await.expect("closes");
}

/// When the power goes: while something is being written, and as often while a segment is begun.
fn moments(engine: Kind, notes: &[Note], opened: usize, random: &mut StdRng) -> Vec<usize> {
    let trials = std::env::var("KEDGE_TRIALS").ok().and_then(|trials| trials.parse().ok()).unwrap_or(TRIALS);
    let segment = if engine == Kind::Sled { SLED_SEGMENT } else { usize::MAX };
    let is_write = |note: &Note| matches!(note, Note::Write(..));
    let begins = |note: &Note| matches!(note, Note::Write(_, _, offset, _) if offset.is_multiple_of(segment));
    let after = |wanted: &dyn Fn(&Note) -> bool| -> Vec<usize> {
        (opened..notes.len()).filter(|&at| wanted(&notes[at])).map(|at| at + 1).collect()
    };
    let (writes, beginnings) = (after(&is_write), after(&begins));
    assert!(!beginnings.is_empty(), "no segment was begun");
    let mut moment = |trial: usize| {
        let among = if trial.is_multiple_of(2) { &beginnings } else { &writes };
        among[random.random_range(0..among.len())]
    };
    let mut moments: Vec<usize> = (0..trials).map(&mut moment).collect();
    moments.sort_unstable();
    moments
}

/// What is on the disk for sure.
#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    /// Notes of what is under way.
    pending: Vec<usize>,
    /// Notes up to here were played.
    played: usize,
    acknowledged: Acknowledged,
}

impl Disk {
    fn play(&mut self, notes: &[Note], moment: usize) {
        for at in self.played..moment {
            match &notes[at] {
                Note::Write(..) | Note::Truncate(..) => self.pending.push(at),
                Note::Barrier(name) => {
                    let files = &mut self.files;
                    self.pending.retain(|pending| {
                        let of_it = file_of(&notes[*pending]) == Some(name);
                        if of_it {
                            apply(files, &notes[*pending], || true);
                        }
                        !of_it
                    });
                }
                Note::Acknowledged(key, step, revision) => {
                    self.acknowledged.insert(key.clone(), (*step, *revision));
                }
            }
        }
        self.played = moment;
    }

    fn after_power_loss(&self, notes: &[Note], survives: f64, random: &mut StdRng) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        for at in &self.pending {
            apply(&mut files, &notes[*at], || random.random_bool(survives));
        }
        files
    }
}

fn file_of(note: &Note) -> Option<&String> {
    match note {
        Note::Write(name, ..) | Note::Truncate(name, _) | Note::Barrier(name) => Some(name),
        Note::Acknowledged(..) => None,
    }
}

/// Apply a note, each sector of it only if it survives.
fn apply(files: &mut BTreeMap<String, Vec<u8>>, note: &Note, mut survives: impl FnMut() -> bool) {
    match note {
        Note::Write(name, length, offset, bytes) => {
            let file = files.entry(name.clone()).or_default();
            // A file whose room was claimed, and that was synced then, has its length whatever happens.
            if name.ends_with(".seg") {
                file.resize(*length, 0);
            }
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
        Note::Truncate(name, length) if survives() => files.entry(name.clone()).or_default().resize(*length, 0),
        Note::Truncate(..) | Note::Barrier(_) | Note::Acknowledged(..) => {}
    }
}

/// A copy of the store's directory around other files.
fn lay_out(engine: Kind, original: &Path, copy: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let (from, to) = (original.join("store").join(engine.name()), copy.join("store").join(engine.name()));
    std::fs::create_dir_all(to.join("blobs")).expect("creates");
    // sled makes its other files whole, and then renames them.
    for entry in std::fs::read_dir(&from).expect("lists").flatten().filter(|_| engine == Kind::Sled) {
        if entry.path().is_file() && entry.file_name() != "db" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
        }
    }
    for (name, bytes) in files.iter().filter(|(name, _)| engine == Kind::Log || *name == "db") {
        std::fs::write(to.join(name), bytes).expect("writes");
    }
}
