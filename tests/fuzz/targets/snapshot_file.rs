//! Bytes as a snapshot's file: as they are, and as records in a file whose checksums are right.
#![no_main]

use kedge::store::snapshots::format::Reader;
use libfuzzer_sys::fuzz_target;
use ring::digest::{Context, SHA256};

/// Frames that are read at most.
const FRAMES: usize = 1000;

fuzz_target!(|input: &[u8]| {
    read(input);
    read(&whole(input));
});

fn read(file: &[u8]) {
    let Ok(mut reader) = Reader::new(file) else { return };
    for _ in 0..FRAMES {
        match reader.frame() {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

fn checksum(previous: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(bytes);
    context.finish().as_ref().to_vec()
}

/// A file with one frame of these records and an end that counts one.
fn whole(records: &[u8]) -> Vec<u8> {
    let mut file = [&b"kedge-snapshot-1"[..], &7_u64.to_be_bytes()].concat();
    let mut sum = checksum(b"", &file);
    let frame = zstd::bulk::compress(records, 1).expect("compresses");
    for (length, bytes) in [(frame.len() as u32, &frame[..]), (0, &1_u64.to_be_bytes()[..])] {
        sum = checksum(&sum, bytes);
        file.extend(length.to_be_bytes());
        file.extend(&sum);
        file.extend(bytes);
    }
    file
}
