//! What a node knew last, kept on disk for a start without the server (DESIGN D11): pods, their ConfigMaps, Secrets and
//! tokens, Services and their endpoints, Nodes.
//!
//! | part | what it is |
//! |---|---|
//! | [`seal`] | bytes that only this node can read |
//! | [`Vault`] | one file a name, written only when it differs |
//! | [`book`] | single objects by key |
//! | `cache::recall` | whole caches |
//!
//! Nothing here is needed: what cannot be read is left out with a warning, and comes from the server when that is back.
//! Flash is spared: writes wait for each other ([`pause_after`]), and what is there already is not written again.

pub mod book;
pub mod lines;
mod seal;

pub use book::Book;

use crate::durable;
use parking_lot::Mutex;
use seal::Seal;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// How long a start waits for the server before what is kept is used.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// From a change to its write: changes come in bursts.
pub const SETTLE: Duration = Duration::from_secs(2);
/// Between two writes of a file; longer for large ones ([`pause_after`]).
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// What one file may cost on flash, on average.
const BYTES_PER_SECOND: u64 = 1024;
/// Largest content of a file, unpacked. What is larger is not kept (the last that fitted stays), with a warning.
const CONTENT_MAX_BYTES: usize = 64 << 20;
/// Fast, and good enough for JSON.
const ZSTD_LEVEL: i32 = 3;

/// How long the next write of a file waits after one of so many bytes.
pub fn pause_after(bytes: u64) -> Duration {
    Duration::from_secs(bytes / BYTES_PER_SECOND).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// A directory of sealed files.
pub struct Vault {
    dir: PathBuf,
    seal: Seal,
    /// Hashes of what the files hold, of those read or written so far.
    held: Mutex<HashMap<String, [u8; 32]>>,
}

impl Vault {
    /// `secret`: the node's private key; whoever has another one cannot read what is in `dir`.
    pub fn open(dir: &Path, secret: &[u8]) -> io::Result<Arc<Self>> {
        durable::create_dir(dir, 0o700)?;
        Ok(Arc::new(Vault { dir: dir.to_owned(), seal: Seal::new(secret), held: Mutex::default() }))
    }

    /// What is kept under a name; None: nothing that can be used. Blocks on the disk.
    pub fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.dir.join(name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!("{}: {error}; starting without it", path.display());
                return None;
            }
        };
        let opened = self.seal.open(name, &sealed);
        let content = opened.and_then(|packed| unpacked(&packed).map_err(|_| "damaged inside"));
        match content {
            Ok(content) => {
                self.held.lock().insert(name.to_owned(), hash(&content));
                Some(content)
            }
            Err(why) => {
                warn!("{} cannot be used ({why}); starting without it", path.display());
                None
            }
        }
    }

    /// Keep this under a name; gives the bytes written, 0 when it was there already. Blocks on the disk.
    pub fn save(&self, name: &str, content: &[u8]) -> io::Result<u64> {
        if content.len() > CONTENT_MAX_BYTES {
            return Err(io::Error::other(format!("{} bytes are more than are kept", content.len())));
        }
        let hash = hash(content);
        let unknown = !self.held.lock().contains_key(name);
        if unknown && self.dir.join(name).exists() {
            self.load(name);
        }
        if self.held.lock().get(name) == Some(&hash) {
            return Ok(0);
        }
        let sealed = self.seal.seal(name, &zstd::bulk::compress(content, ZSTD_LEVEL)?)?;
        durable::write(&self.dir.join(name), &sealed, durable::SECRET)?;
        self.held.lock().insert(name.to_owned(), hash);
        Ok(sealed.len() as u64)
    }
}

fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    zstd::Decoder::new(packed)?.take(CONTENT_MAX_BYTES as u64).read_to_end(&mut content)?;
    Ok(content)
}

fn hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

#[cfg(test)]
mod tests;
