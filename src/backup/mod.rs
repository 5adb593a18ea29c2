//! Backups: one file with all that makes up a server, from which it starts again on any host.
//!
//! A tar archive, or one encrypted with a passphrase ([`sealed`]):
//!
//! | entry | what |
//! |---|---|
//! | `backup.json` | a [`Summary`] |
//! | `config/…` | the configuration file and its folder |
//! | `server/…` | what is below `server/` in the data directory, but for the store and other backups |
//! | `store.snapshot` | the store at one revision |
//! | `SHA256SUMS` | of everything before |

mod import;
mod restore;
mod schedule;
pub mod sealed;

pub use import::{Imported, import};
pub use restore::restore;
pub use schedule::{Schedule, start};

use crate::store::snapshots;
use crate::{durable, time};
use anyhow::{Context, bail, ensure};
use ring::digest::{SHA256, digest};
use sealed::{MAGIC, Opener, Sealer};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub const EXTENSION: &str = "kedge-backup";

const SUMMARY: &str = "backup.json";
const STORE: &str = "store.snapshot";
const SUMS: &str = "SHA256SUMS";

/// Below `server/`: the store has its own entry, backups are not saved again, sockets and other hosts' files are none.
const LEFT_OUT: &[&str] = &["db", "backups"];

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// RFC 3339.
    pub time: String,
    /// The host that it is of.
    pub host: String,
    pub version: String,
    /// The store's.
    pub revision: u64,
}

/// What is to be saved.
pub struct Source<'a> {
    pub data_dir: &'a Path,
    pub config: &'a Path,
    /// A snapshot of the store in a file.
    pub snapshot: &'a Path,
}

/// The name of a backup that is made now.
pub fn file_name(host: &str) -> String {
    format!("{host}-{}.{EXTENSION}", time::rfc3339(time::now()).replace(':', ""))
}

/// Write a backup, complete or not at all.
pub fn save(source: &Source<'_>, path: &Path, passphrase: Option<&str>) -> anyhow::Result<Summary> {
    let revision = snapshots::check(source.snapshot).context("the snapshot of the store")?.revision;
    let summary = Summary {
        time: time::rfc3339(time::now()),
        host: host(source.data_dir),
        version: crate::VERSION.to_owned(),
        revision: revision.0,
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".unfinished");
    let temporary = PathBuf::from(temporary);
    let write = || -> anyhow::Result<()> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(durable::SECRET).clone();
        let out = BufWriter::new(options.open(&temporary)?);
        let out = match passphrase {
            None => archive(source, &summary, out)?,
            Some(passphrase) => archive(source, &summary, Sealer::new(out, passphrase)?)?.finish()?,
        };
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)?;
        durable::sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(())
    };
    write().with_context(|| format!("cannot write the backup {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(summary)
}

/// The node's name, else the host's.
pub fn host(data_dir: &Path) -> String {
    let kept = fs::read_to_string(data_dir.join("node-name")).unwrap_or_default();
    match kept.trim() {
        "" => nix::unistd::gethostname().map_or("host".into(), |name| name.to_string_lossy().into_owned()),
        name => name.to_owned(),
    }
}

fn archive<W: Write>(source: &Source<'_>, summary: &Summary, out: W) -> anyhow::Result<W> {
    let mut archive = Archive { tar: tar::Builder::new(out), sums: String::new() };
    archive.add(SUMMARY, 0o600, &serde_json::to_vec_pretty(summary)?)?;
    let folder = source.config.with_extension("yaml.d");
    for (from, to) in [(source.config, "config/config.yaml"), (&folder, "config/config.yaml.d")] {
        archive.add_tree(from, to, &[])?;
    }
    archive.add_tree(&source.data_dir.join("server"), "server", LEFT_OUT)?;
    let mut store = File::open(source.snapshot)?;
    archive.add_file(STORE, 0o600, &mut store)?;
    let sums = std::mem::take(&mut archive.sums);
    archive.add(SUMS, 0o600, sums.as_bytes())?;
    Ok(archive.tar.into_inner()?)
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    sums: String,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        self.note(name, digest(&SHA256, bytes).as_ref());
        self.tar.append_data(&mut header(mode, bytes.len() as u64), name, bytes)?;
        Ok(())
    }

    /// A file too large for memory; read twice.
    fn add_file(&mut self, name: &str, mode: u32, file: &mut File) -> anyhow::Result<()> {
        let length = file.metadata()?.len();
        let mut hashing = Hashing::new(&mut *file);
        io::copy(&mut hashing, &mut io::sink())?;
        let sum = hashing.finish();
        file.rewind()?;
        self.note(name, &sum);
        self.tar.append_data(&mut header(mode, length), name, file.take(length))?;
        Ok(())
    }

    /// A file or everything below a folder, in order; what is not there is left out, and so are sockets and links.
    fn add_tree(&mut self, from: &Path, to: &str, left_out: &[&str]) -> anyhow::Result<()> {
        let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
        if metadata.is_file() {
            let bytes = fs::read(from).with_context(|| from.display().to_string())?;
            return self.add(to, metadata.permissions().mode() & 0o777, &bytes);
        }
        if !metadata.is_dir() {
            return Ok(());
        }
        let entries = fs::read_dir(from).with_context(|| from.display().to_string())?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let Some(text) = name.to_str().filter(|text| !left_out.contains(text)) else { continue };
            self.add_tree(&from.join(&name), &format!("{to}/{text}"), &[])?;
        }
        Ok(())
    }

    fn note(&mut self, name: &str, sum: &[u8]) {
        for byte in sum {
            let _ = write!(self.sums, "{byte:02x}");
        }
        let _ = writeln!(self.sums, "  {name}");
    }
}

fn header(mode: u32, length: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(length);
    header.set_mtime(u64::try_from(time::now_seconds()).unwrap_or(0));
    header
}

/// Hashes what is read through it.
struct Hashing<R> {
    input: R,
    context: ring::digest::Context,
}

impl<R: Read> Hashing<R> {
    fn new(input: R) -> Self {
        Hashing { input, context: ring::digest::Context::new(&SHA256) }
    }

    fn finish(self) -> Vec<u8> {
        self.context.finish().as_ref().to_vec()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(out)?;
        self.context.update(&out[..count]);
        Ok(count)
    }
}

/// Read a backup to its end: each entry but the sums goes to `take` as path and content. What was taken counts only if
/// this succeeds.
fn read(
    path: &Path,
    passphrase: Option<&str>,
    mut take: impl FnMut(&Path, u32, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut input = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
    let input: Box<dyn Read> = if is_sealed(path)? {
        let Some(passphrase) = passphrase else {
            bail!("{} is encrypted: give --passphrase-file", path.display());
        };
        input.seek(io::SeekFrom::Start(MAGIC.len() as u64))?;
        Box::new(Opener::new(input, passphrase)?)
    } else {
        Box::new(input)
    };
    let mut archive = tar::Archive::new(input);
    let (mut found, mut wanted) = (BTreeMap::new(), None);
    for entry in archive.entries()? {
        let mut entry = entry.context("the backup is damaged")?;
        let name = entry.path()?.into_owned();
        ensure!(wanted.is_none(), "the backup goes on behind its end");
        if name == Path::new(SUMS) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            wanted = Some(text);
            continue;
        }
        let mode = entry.header().mode()?;
        let mut hashing = Hashing::new(&mut entry);
        take(&name, mode, &mut hashing)?;
        io::copy(&mut hashing, &mut io::sink())?;
        found.insert(name, hashing.finish());
    }
    let wanted = wanted.context("the backup is cut off")?;
    let mut sums = Archive { tar: tar::Builder::new(io::sink()), sums: String::new() };
    let mut lines: Vec<&str> = wanted.lines().collect();
    for (name, sum) in &found {
        sums.note(&name.to_string_lossy(), sum);
    }
    let mut have: Vec<&str> = sums.sums.lines().collect();
    lines.sort_unstable();
    have.sort_unstable();
    ensure!(lines == have, "the backup is damaged: its checksums are wrong");
    Ok(())
}

pub fn is_sealed(path: &Path) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start == MAGIC)
}

/// What a backup holds, after all of it has been checked.
pub fn check(path: &Path, passphrase: Option<&str>) -> anyhow::Result<Summary> {
    let mut summary = None;
    read(path, passphrase, |name, _, content| {
        if name == Path::new(SUMMARY) {
            summary = Some(serde_json::from_reader(content)?);
        }
        Ok(())
    })?;
    summary.context("not a backup of kedge")
}

/// The passphrase in a file: its first line.
pub fn passphrase(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("{} is empty: its first line is the passphrase", path.display()),
    }
}

/// Where backups go unless told otherwise.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("server/backups")
}

/// The backups in a directory, newest first.
pub fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == EXTENSION)).collect();
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).and_then(|m| m.modified()).ok()));
    found
}

#[cfg(test)]
mod tests;
