//! `hostPath`: a path of the node, checked (and made, if asked) by its type.

use super::{SetUp, VolumeType};
use anyhow::{Context, bail};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub struct HostPath;

#[async_trait]
impl VolumeType for HostPath {
    fn is(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(&self, _on: &SetUp<'_>, volume: &Volume) -> anyhow::Result<PathBuf> {
        let source = volume.host_path.clone().unwrap_or_default();
        let path = PathBuf::from(&source.path);
        check(&path, source.type_.as_deref().unwrap_or_default())?;
        Ok(path)
    }
}

/// Upstream's checks and messages.
pub fn check(path: &Path, kind: &str) -> anyhow::Result<()> {
    let found = fs::metadata(path).ok().map(|m| m.file_type());
    let shown = path.display();
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).with_context(|| format!("making {shown}"))
        }
        ("FileOrCreate", None) => fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(path)
            .map(drop)
            .with_context(|| format!("making {shown}")),
        ("DirectoryOrCreate" | "Directory", Some(f)) if f.is_dir() => Ok(()),
        ("FileOrCreate" | "File", Some(f)) if f.is_file() => Ok(()),
        ("Socket", Some(f)) if f.is_socket() => Ok(()),
        ("CharDevice", Some(f)) if f.is_char_device() => Ok(()),
        ("BlockDevice", Some(f)) if f.is_block_device() => Ok(()),
        ("DirectoryOrCreate" | "Directory", _) => bail!("hostPath type check failed: {shown} is not a directory"),
        ("FileOrCreate" | "File", _) => bail!("hostPath type check failed: {shown} is not a file"),
        ("Socket", _) => bail!("hostPath type check failed: {shown} is not a socket file"),
        ("CharDevice", _) => bail!("hostPath type check failed: {shown} is not a character device"),
        ("BlockDevice", _) => bail!("hostPath type check failed: {shown} is not a block device"),
        (other, _) => bail!("{other} is an invalid volume type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        let cases = [
            ("file", "File", true),
            ("file", "FileOrCreate", true),
            ("file", "Directory", false),
            ("none", "", true),
            ("none", "Directory", false),
            ("a/b", "DirectoryOrCreate", true),
            ("a/b", "Directory", true),
            ("new", "FileOrCreate", true),
            ("new", "File", true),
            ("file", "Socket", false),
        ];
        for (name, kind, ok) in cases {
            assert_eq!(check(&at(name), kind).is_ok(), ok, "{name} {kind}");
        }
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok());
    }
}
