//! Snapshots of a store in files: written online in small steps, replaced atomically, checked before use.

pub mod format;
pub mod rolling;

use super::{Error, Revision, Store};
use format::{FRAME_BYTES, Reader, Writer};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    pub records: u64,
}

/// Write a snapshot of the store as it is now. A step of the store's and a frame are in memory at a time.
pub async fn write<W: Write + Send>(store: &dyn Store, out: W) -> Result<(Summary, W), Error> {
    let mut snapshot = store.snapshot().await?;
    let revision = snapshot.head().revision;
    let mut writer = Writer::new(out, revision).map_err(|e| failed(&e))?;
    for lease in &snapshot.head().leases {
        writer.lease(lease).map_err(|e| failed(&e))?;
    }
    loop {
        let writes = snapshot.next().await?;
        if writes.is_empty() {
            break;
        }
        for write in &writes {
            writer.add(write).map_err(|e| failed(&e))?;
        }
        tokio::task::yield_now().await;
    }
    let (records, out) = writer.finish().map_err(|e| failed(&e))?;
    Ok((Summary { revision, records }, out))
}

/// Read a snapshot file to its end: whether it is whole, and what it holds.
pub fn check(path: &Path) -> io::Result<Summary> {
    let mut reader = open(path)?;
    let mut records = 0;
    while let Some(items) = reader.frame()? {
        records += items.len() as u64;
    }
    Ok(Summary { revision: reader.revision(), records })
}

pub fn open(path: &Path) -> io::Result<Reader<BufReader<File>>> {
    Reader::new(BufReader::with_capacity(FRAME_BYTES, File::open(path)?))
}

/// The snapshots in a directory, newest first.
pub fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == EXTENSION)).collect();
    found.sort();
    found.reverse();
    found
}

const EXTENSION: &str = "snapshot";

/// Names sort by revision.
fn name(revision: Revision) -> String {
    format!("{:020}.{EXTENSION}", revision.0)
}

fn failed(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace(error.to_string()),
        _ => Error::Failed { step: "writing a snapshot", message: error.to_string() },
    }
}
