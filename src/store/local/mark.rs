//! How far the store had come, noted beside sled's files.
//!
//! sled takes what it cannot read at the end of its log for a write that a crash has torn, and goes on without it. If
//! that was damage, acknowledged writes are gone and nothing in sled says so. So each commit is noted here, after its
//! barrier and without one of its own: the note survives the process (it is in the kernel's memory then), and after a
//! power loss it may be old, but it never tells of a write that was not on the disk.

use ring::digest::{SHA256, digest};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use tracing::{debug, warn};

const MAGIC: &[u8; 8] = b"kedgemk1";
const BYTES: usize = 32;

/// What is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Last revision behind a barrier.
    pub durable: u64,
    /// No revision above was ever given out.
    pub reserved: u64,
}

pub struct Mark(File);

impl Mark {
    /// Open or create the note. A damaged one tells nothing.
    pub fn open(path: &Path) -> io::Result<(Self, Noted)> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(path)?;
        let mut bytes = [0; BYTES];
        let noted = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && file.metadata()?.len() == 0 => {
                Some(Noted::default())
            }
            Err(_) => None,
        };
        if noted.is_none() {
            warn!(path = %path.display(), "the note of the last write is damaged: lost writes could go unnoticed");
        }
        Ok((Mark(file), noted.unwrap_or_default()))
    }

    /// Note how far it has come. Best effort: this is evidence, not data.
    pub fn set(&self, noted: Noted) {
        if let Err(error) = self.0.write_all_at(&encode(noted), 0) {
            debug!(%error, "the last write could not be noted");
        }
    }
}

fn encode(noted: Noted) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&noted.durable.to_be_bytes());
    bytes[16..24].copy_from_slice(&noted.reserved.to_be_bytes());
    let sum = digest(&SHA256, &bytes[..24]);
    bytes[24..].copy_from_slice(&sum.as_ref()[..8]);
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<Noted> {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let noted = Noted { durable: number(8)?, reserved: number(16)? };
    (encode(noted) == *bytes).then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_and_damage_tells_nothing() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("mark");
        let noted = Noted { durable: 7, reserved: 4096 };
        let (mark, before) = Mark::open(&path).expect("opens");
        assert_eq!(before, Noted::default());
        mark.set(Noted { durable: 3, reserved: 9 });
        mark.set(noted);
        assert_eq!(Mark::open(&path).expect("opens").1, noted);
        let whole = std::fs::read(&path).expect("reads");
        for at in 0..BYTES {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).expect("writes");
            assert_eq!(Mark::open(&path).expect("opens").1, Noted::default(), "{at}");
            std::fs::write(&path, &whole[..at]).expect("writes");
            assert_eq!(Mark::open(&path).expect("opens").1, Noted::default(), "{at}");
        }
    }
}
