//! Replacing the content of a volume at once: readers see all of the old files or all of the new (upstream's
//! `AtomicWriter` layout, on which applications rely).
//!
//! ```text
//! volume/..2026_03_04_05_06_07.123456789/key     the files
//! volume/..data -> ..2026_03_04_05_06_07.123456789
//! volume/key -> ..data/key                        what containers open
//! ```

use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// One file to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Owner; None: root.
    pub user: Option<u32>,
}

/// Relative path → file.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// Longest path in a volume.
const PATH_BYTES_MAX: usize = 4096;

/// Make `dir` hold exactly `payload`. `group`: owns the files (fsGroup) and may read them.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> anyhow::Result<()> {
    for path in payload.keys() {
        check_path(path)?;
    }
    let now = crate::time::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let old = fs::read_link(dir.join(DATA)).ok();
    let new = dir.join(&now);
    let result = write_new(&new, payload, group).and_then(|()| switch(dir, &now));
    if let Err(error) = result {
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    link_names(dir, payload)?;
    if let Some(old) = old.filter(|old| *old != Path::new(&now)) {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(())
}

fn check_path(path: &str) -> anyhow::Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || path.len() > PATH_BYTES_MAX || !plain || path.starts_with("..") {
        bail!("invalid path: {path:?}");
    }
    Ok(())
}

fn write_new(new: &Path, payload: &Payload, group: Option<u32>) -> anyhow::Result<()> {
    make_dir(new, group)?;
    for (path, file) in payload {
        let target = new.join(path);
        let mut parent = new.to_path_buf();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.is_dir() {
                make_dir(&parent, group)?;
            }
        }
        fs::write(&target, &file.bytes).with_context(|| format!("writing {}", target.display()))?;
        // A group that is to read the files can, whatever the mode says (upstream's ownership rule).
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        chown(&target, file.user, group).with_context(|| format!("chown {}", target.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}

fn make_dir(dir: &Path, group: Option<u32>) -> anyhow::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(dir).with_context(|| format!("making {}", dir.display()))?;
    if group.is_some() {
        chown(dir, None, group)?;
    }
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// The one step that readers see.
fn switch(dir: &Path, now: &str) -> anyhow::Result<()> {
    let temporary = dir.join(DATA_NEW);
    let _ = fs::remove_file(&temporary);
    symlink(now, &temporary).context("linking the new content")?;
    fs::rename(&temporary, dir.join(DATA)).context("switching to the new content")
}

/// Links for the first part of every path; those that nothing needs go.
fn link_names(dir: &Path, payload: &Payload) -> anyhow::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        let target = PathBuf::from(DATA).join(name);
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            let _ = fs::remove_file(&link);
            symlink(&target, &link).with_context(|| format!("linking {}", link.display()))?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = fs::read_link(entry.path()).is_ok_and(|t| t.starts_with(DATA));
        if ours && !name.starts_with("..") && !wanted.contains(name.as_str()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.into(), mode: 0o640, user: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.into_iter().filter(|n| !n.starts_with("..2")).collect()
    }

    #[test]
    fn content_is_replaced_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, &payload(&[("a", "1"), ("d/e", "2"), ("d/f", "3")]), None).unwrap();
        assert_eq!(names(dir), ["..data", "a", "d"]);
        assert_eq!(fs::read_to_string(dir.join("d/e")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join("..data")).unwrap();
        write(dir, &payload(&[("a", "9"), ("b", "4")]), None).unwrap();
        assert_eq!(names(dir), ["..data", "a", "b"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "9");
        assert!(!dir.join(before).exists());
        for bad in ["", "../x", "/x", "a/../b", "..x"] {
            assert!(write(dir, &payload(&[(bad, "")]), None).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_to_string(dir.join("b")).unwrap(), "4");
    }
}
