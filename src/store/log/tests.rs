use super::*;
use crate::store::local::engine::Opened;
use crate::store::local::record::{Encoder, Write};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn place(revision: u64) -> Place {
    Place { revision, sub: 0 }
}

/// Bytes that do not compress.
fn noise(random: &mut StdRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes[..]);
    bytes
}

fn add(place: Place, value: &[u8]) -> (Place, crate::store::local::record::Encoded) {
    let write = Write { key: b"/a", value: Some(value), create: 1, version: place.revision, lease: LeaseId::NONE };
    (place, Encoder::new().encode(&write))
}

fn changes(records: &[(u64, &[u8])]) -> Changes {
    Changes { records: records.iter().map(|(at, value)| add(place(*at), value)).collect(), ..Changes::default() }
}

fn gone(revision: u64) -> Superseded {
    Superseded { until: 0, place: place(revision), stored: 0, key: b"/a"[..].into() }
}

fn content(opened: &Opened) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    let scanned = opened.engine.scan(place(0), &mut |place, record| {
        let value = record.value().expect("is here").expect("unpacks");
        assert_eq!(opened.engine.value(place).expect("reads"), Some(value.clone()));
        found.insert(place.revision, value.to_vec());
        Ok(true)
    });
    scanned.expect("scans");
    found
}

fn files(path: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).expect("lists").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// How many removals are not undone: of those that are, none was before one that is not.
fn stays_removed(removed: &[(u64, Vec<u8>)], found: &BTreeMap<u64, Vec<u8>>, context: &str) -> usize {
    let back: Vec<bool> = removed.iter().map(|(revision, _)| found.contains_key(revision)).collect();
    assert!(back.is_sorted(), "{context}: {back:?}");
    back.iter().filter(|back| !**back).count()
}

/// Random commits, removals, steps of cleaning and openings, against a map. A copy of the files at any moment, as
/// `kill -9` leaves them, holds the same, but that the last removals may be undone.
#[test]
fn it_holds_what_was_committed() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let scratch = tempfile::tempdir().expect("scratch");
        let (path, copy) = (scratch.path().join("log"), scratch.path().join("copy"));
        let mut opened = open(&path).expect("opens");
        let (mut model, mut removed) = (BTreeMap::new(), Vec::<(u64, Vec<u8>)>::new());
        let mut leases: BTreeMap<LeaseId, LeaseEntry> = BTreeMap::new();
        let mut revision = 1;
        for step in 0..250 {
            let context = format!("seed {seed} step {step}");
            match random.random_range(0..100) {
                0..60 => {
                    let mut changes = Changes::default();
                    for _ in 0..random.random_range(1..4) {
                        revision += 1;
                        let length = [10, 3_000, 30_000, 200_000][random.random_range(0..4)];
                        let value = noise(&mut random, length);
                        changes.records.push(add(place(revision), &value));
                        model.insert(revision, value);
                    }
                    let (id, granted) = (LeaseId(random.random_range(0..5)), random.random_range(1..100));
                    let entry = LeaseEntry { granted, remaining: random.random_bool(0.5).then_some(1) };
                    let change = if leases.remove(&id).is_some() {
                        LeaseChange::Remove
                    } else {
                        leases.insert(id, entry);
                        LeaseChange::Add(entry)
                    };
                    changes.leases.push((id, change));
                    changes.notes.compacted = Some(revision);
                    opened.engine.commit(changes).expect("commits");
                }
                60..85 => {
                    // Mostly the oldest, as compaction does.
                    let wanted = random.random_range(0..8);
                    let some: Vec<u64> = match random.random_bool(0.7) {
                        true => model.keys().take(wanted).copied().collect(),
                        false => model.keys().filter(|_| random.random_bool(0.1)).take(wanted).copied().collect(),
                    };
                    for revision in &some {
                        removed.push((*revision, model.remove(revision).expect("is there")));
                    }
                    let some: Vec<Superseded> = some.into_iter().map(gone).collect();
                    opened.engine.forget(&some, false).expect("forgets");
                }
                85..95 => while opened.engine.tidy().expect("tidies") && random.random_bool(0.8) {},
                _ => {
                    drop(opened);
                    opened = open(&path).expect("opens");
                    model.extend(removed.split_off(stays_removed(&removed, &content(&opened), &context)));
                }
            }
            if step % 10 == 0 {
                assert_eq!(content(&opened), model, "{context}");
                let _ = fs::remove_dir_all(&copy);
                fs::create_dir(&copy).expect("creates");
                for file in files(&path) {
                    fs::copy(&file, copy.join(file.file_name().expect("name"))).expect("copies");
                }
                let copied = open(&copy).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(
                    (copied.damage.as_ref(), copied.notes.compacted.unwrap_or(1)),
                    (None, revision),
                    "{context}"
                );
                assert_eq!(copied.leases.iter().copied().collect::<BTreeMap<_, _>>(), leases, "{context}");
                let found = content(&copied);
                assert!(model.iter().all(|(revision, value)| found.get(revision) == Some(value)), "{context}");
                let back = removed.len() - stays_removed(&removed, &found, &context);
                assert_eq!(found.len(), model.len() + back, "{context}");
            }
        }
        let segments = files(&path).len();
        assert!(segments < 40, "seed {seed}: {segments} files");
    }
}

/// Half of what is written is garbage soon: the files stay within what they may take, and are used again.
#[test]
fn garbage_is_cleaned_away() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut random = StdRng::seed_from_u64(1);
    let opened = open(scratch.path()).expect("opens");
    let cold: Vec<(u64, Vec<u8>)> = (2..40).map(|at| (at, noise(&mut random, 100_000))).collect();
    for (at, value) in &cold {
        opened.engine.commit(changes(&[(*at, value)])).expect("commits");
    }
    let live: u64 = 38 * 100_000;
    let mut names = std::collections::BTreeSet::new();
    for at in 40..1040 {
        opened.engine.commit(changes(&[(at, &noise(&mut random, 20_000))])).expect("commits");
        opened.engine.forget(&[gone(at)], false).expect("forgets");
        while opened.engine.tidy().expect("tidies") {}
        let most = 2 * live + 7 * LEAST_SEGMENT_BYTES;
        assert!(opened.engine.bytes() <= most, "{} bytes at {at}", opened.engine.bytes());
        names.extend(files(scratch.path()));
    }
    assert_eq!(content(&opened), cold.into_iter().collect());
    // 20 MB were written into files of 2 MiB; cleaning cost no more than the garbage itself.
    assert!(names.len() < 12, "{} files", names.len());
    let written = opened.engine.written();
    assert!(written < 2 * (live + 1000 * 24_576), "{written} bytes");
    let on_disk: u64 = files(scratch.path()).iter().map(|file| fs::metadata(file).expect("is there").len()).sum();
    assert_eq!(on_disk, opened.engine.bytes());
}

/// Longer than a segment, at the very beginning and later.
#[test]
fn long_frames_get_segments_of_their_own() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut random = StdRng::seed_from_u64(3);
    let mut opened = open(scratch.path()).expect("opens");
    let mut model = BTreeMap::new();
    let segment = LEAST_SEGMENT_BYTES as usize;
    for (at, length) in [(2, 3 * segment), (3, 10), (4, segment - 4096), (5, 2 * segment), (6, segment - 9000)] {
        let value = noise(&mut random, length);
        opened.engine.commit(changes(&[(at, &value)])).expect("commits");
        model.insert(at, value);
        assert_eq!(content(&opened), model);
        drop(opened);
        opened = open(scratch.path()).expect("opens");
        assert_eq!((content(&opened), opened.damage.as_ref()), (model.clone(), None), "{at}");
    }
    // The first frame fits, but not beside the head.
    let scratch = tempfile::tempdir().expect("scratch");
    let opened = open(scratch.path()).expect("opens");
    let value = noise(&mut random, segment - 100);
    opened.engine.commit(changes(&[(2, &value)])).expect("commits");
    opened.engine.commit(changes(&[(3, b"behind")])).expect("commits");
    drop(opened);
    assert_eq!(content(&open(scratch.path()).expect("opens")).len(), 2);
}

/// What is removed must not come back because what says so was dropped first.
#[test]
fn what_is_removed_stays_removed() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut random = StdRng::seed_from_u64(2);
    let mut opened = open(scratch.path()).expect("opens");
    opened.engine.commit(changes(&[(2, b"old"), (3, b"kept")])).expect("commits");
    let mut next = 4;
    let mut churn = |opened: &Opened, count: u64| {
        for at in next..next + count {
            opened.engine.commit(changes(&[(at, &noise(&mut random, 50_000))])).expect("commits");
            opened.engine.forget(&[gone(at)], true).expect("forgets");
            while opened.engine.tidy().expect("tidies") {}
        }
        next += count;
    };
    // Both are written again some times, then one is removed, and what says so is dropped in the end.
    churn(&opened, 400);
    opened.engine.forget(&[gone(2)], false).expect("forgets");
    churn(&opened, 400);
    for _ in 0..3 {
        drop(opened);
        opened = open(scratch.path()).expect("opens");
        let found = content(&opened);
        assert!(!found.contains_key(&2) && found[&3] == b"kept", "{:?}", found.keys());
        churn(&opened, 100);
    }
}

/// Only the newest frame can be torn, and only that is taken for torn.
#[test]
fn a_torn_end_is_told_from_damage() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("log");
    let opened = open(&path).expect("opens");
    for at in 2..6 {
        opened.engine.commit(changes(&[(at, &[at as u8; 10_000])])).expect("commits");
    }
    drop(opened);
    let [file] = &files(&path)[..1] else { panic!("no file") };
    let whole = fs::read(file).expect("reads");
    // The head, then frames of one block each: the values compress.
    let block = |number: usize| number * frame::BLOCK..(number + 1) * frame::BLOCK;
    type Case = (&'static str, std::ops::Range<usize>, Result<(u64, bool), ()>);
    let cases: [Case; 4] = [
        ("the last frame", block(4), Ok((4, false))),
        ("one before it", block(3), Ok((3, true))),
        ("the first", block(1), Ok((1, true))),
        ("the head", block(0), Err(())),
    ];
    for (what, range, wanted) in cases {
        for damage in
            [|bytes: &mut [u8]| bytes.fill(0), |bytes: &mut [u8]| bytes[41] ^= 1, |bytes: &mut [u8]| bytes[5] ^= 64]
        {
            let mut bytes = whole.clone();
            damage(&mut bytes[range.clone()]);
            fs::write(file, &bytes).expect("writes");
            let found = open(&path).map(|opened| (opened.last, opened.damage.is_some())).map_err(drop);
            assert_eq!(found, wanted, "{what}");
            for spare in &files(&path)[1..] {
                fs::remove_file(spare).expect("removes");
            }
        }
    }
    // Whatever is cut off: everything before it, or what is said of it.
    for length in (0..whole.len()).step_by(977) {
        fs::write(file, &whole[..length]).expect("writes");
        let opened = open(&path).unwrap_or_else(|error| panic!("{length}: {error}"));
        let complete = (length / frame::BLOCK).clamp(1, 5) as u64;
        assert!(opened.last == complete || opened.last == complete + 1, "{length}: {}", opened.last);
        for spare in &files(&path)[1..] {
            fs::remove_file(spare).expect("removes");
        }
    }
}
