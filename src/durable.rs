//! Files that survive power cuts: written beside, synced, renamed, and the directory synced.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of files that hold secrets.
pub const SECRET: u32 = 0o600;
/// Mode of files that anyone may read.
pub const PUBLIC: u32 = 0o644;

/// Replace or create a file with these bytes and exactly this mode (the process umask does not count). After a crash
/// at any moment the file holds either the old bytes or the new ones. A symbolic link is replaced, not followed. A file that
/// is like that already is not written again: flash lasts longer, and a start on a full disk works.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no file name"))?;
    let parent = parent(path);
    if holds(path, bytes, mode) {
        return sync_dir(parent);
    }
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let unique = format!(".{}.{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(unique);
    let temporary = parent.join(temporary_name);
    let replace = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    replace().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    sync_dir(parent)
}

fn holds(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let like = |found: fs::Metadata| {
        found.is_file() && found.len() == bytes.len() as u64 && found.permissions().mode() & 0o7777 == mode
    };
    fs::symlink_metadata(path).is_ok_and(like) && fs::read(path).is_ok_and(|found| found == bytes)
}

/// Create a directory and its missing parents, durably. It gets this mode, also if it was there already; new parents get
/// 0755.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    if !path.is_dir() {
        let parent = parent(path);
        if !parent.is_dir() {
            create_dir(parent, 0o755)?;
        }
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        sync_dir(parent)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Make the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != PathBuf::new() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o7777
    }

    #[test]
    fn files_get_their_bytes_and_mode() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("key.pem");
        for (bytes, wanted) in [(&b"one"[..], 0o600), (b"", 0o644), (b"a longer text", 0o666)] {
            write(&path, bytes, wanted).expect("writes");
            assert_eq!((fs::read(&path).expect("reads"), mode(&path)), (bytes.to_vec(), wanted));
        }
        assert_eq!(fs::read_dir(scratch.path()).expect("lists").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        use std::os::unix::fs::MetadataExt;
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("file");
        let inode = |bytes: &[u8], mode: u32| {
            write(&path, bytes, mode).expect("writes");
            fs::symlink_metadata(&path).expect("exists").ino()
        };
        let first = inode(b"x", 0o600);
        assert_eq!(inode(b"x", 0o600), first);
        let others = [inode(b"y", 0o600), inode(b"y", 0o644)];
        assert!(others[0] != first && others[1] != others[0]);
        // A link is replaced, whatever it leads to.
        let target = scratch.path().join("target");
        fs::rename(&path, &target).expect("moves");
        std::os::unix::fs::symlink(&target, &path).expect("links");
        write(&path, b"y", 0o644).expect("writes");
        assert!(fs::symlink_metadata(&path).expect("exists").is_file());
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("taken");
        fs::create_dir(&path).expect("creates");
        write(&path, b"x", 0o600).expect_err("a directory is in the way");
        assert_eq!(fs::read_dir(scratch.path()).expect("lists").count(), 1);
        write(&scratch.path().join("absent/file"), b"x", 0o600).expect_err("no directory");
        write(Path::new("/"), b"x", 0o600).expect_err("no name");
    }

    #[test]
    fn directories_are_made_with_their_parents() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("a/b/c");
        create_dir(&path, 0o700).expect("creates");
        assert_eq!((mode(&path), mode(&scratch.path().join("a"))), (0o700, 0o755));
        create_dir(&path, 0o750).expect("is there");
        assert_eq!(mode(&path), 0o750);
        write(&scratch.path().join("file"), b"", 0o600).expect("writes");
        create_dir(&scratch.path().join("file"), 0o700).expect_err("a file is in the way");
    }
}
