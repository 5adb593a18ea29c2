//! Container logs: rotated at 10 MiB, five files a container (upstream's defaults); where their files are.

use super::context::Agent;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, warn};

const MAX_BYTES: u64 = 10 << 20;
/// With the one that is written to.
const MAX_FILES: usize = 5;
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Rotate until the task is dropped.
pub async fn run(agent: Arc<Agent>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for view in agent.views.all() {
            for container in view.containers.iter().filter(|c| c.is_running()) {
                let path = PathBuf::from(&container.log_path);
                if fs::metadata(&path).is_ok_and(|m| m.len() > MAX_BYTES)
                    && let Err(error) = rotate(&agent, &path, &container.id).await
                {
                    warn!("rotating {}: {error:#}", path.display());
                }
            }
        }
    }
}

/// One rotation: old files go or are compressed, the current one gets a time, the runtime opens a new one.
async fn rotate(agent: &Agent, path: &Path, id: &str) -> anyhow::Result<()> {
    let place = path.to_owned();
    let aside = crate::task::Group::blocking(move || set_aside(&place)).await??;
    if let Err(error) = agent.cri.reopen_log(id).await {
        // The runtime still writes to the old file: it keeps its name.
        fs::rename(&aside, path)?;
        return Err(error.into());
    }
    debug!("rotated {}", path.display());
    Ok(())
}

/// Make room and rename the current log; gives its new name.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let rotated = rotated(path)?;
    // Two places are for the current file and the one that is set aside now.
    let excess = rotated.len().saturating_sub(MAX_FILES - 2);
    for old in &rotated[..excess] {
        fs::remove_file(old)?;
    }
    for old in rotated[excess..].iter().filter(|p| p.extension().is_none_or(|e| e != "gz")) {
        compress(old)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(crate::time::now().strftime(".%Y%m%d-%H%M%S").to_string());
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Rotated files of a log, oldest first; the current one is not among them.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let start = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&start) else { continue };
        if rest.ends_with(".tmp") {
            // Left by a crash in the middle of a compression.
            let _ = fs::remove_file(entry.path());
        } else {
            found.push(entry.path());
        }
    }
    // Times sort as text.
    found.sort();
    Ok(found)
}

fn compress(path: &Path) -> io::Result<()> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let temporary = with(".tmp");
    let mut out = GzEncoder::new(File::create(&temporary)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut out)?;
    out.finish()?.sync_all()?;
    fs::rename(&temporary, with(".gz"))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_compressed_and_then_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let names = || -> Vec<String> {
            let all = rotated(&log).unwrap();
            all.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        for n in 0..8 {
            fs::write(&log, format!("{n}")).unwrap();
            let aside = set_aside(&log).unwrap();
            // The clock has whole seconds; a test does not wait for them.
            fs::rename(&aside, dir.path().join(format!("0.log.20260101-00000{n}"))).unwrap();
        }
        assert_eq!(
            names(),
            [
                "0.log.20260101-000004.gz",
                "0.log.20260101-000005.gz",
                "0.log.20260101-000006.gz",
                "0.log.20260101-000007"
            ]
        );
        let mut text = String::new();
        let file = File::open(dir.path().join("0.log.20260101-000005.gz")).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
        assert_eq!(text, "5");
    }
}
