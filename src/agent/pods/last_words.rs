//! A container's termination message: the file it wrote, or the end of its log (upstream's rules and sizes).

use crate::agent::labels;
use crate::agent::observed::Container;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Of one container.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// Of a log, where the container has not written a file.
const LOG_BYTES_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

/// What an ended container has to say.
pub fn of(container: &Container) -> String {
    let path = container.annotations.get(labels::MESSAGE_PATH).map_or(labels::DEFAULT_MESSAGE_PATH, |p| p.as_str());
    let file = container.mounts.iter().find(|(inside, _)| inside == path).map(|(_, host)| host);
    let text = file.and_then(|f| head(Path::new(f), MESSAGE_BYTES_MAX).ok()).unwrap_or_default();
    let policy = container.annotations.get(labels::MESSAGE_POLICY).map(String::as_str);
    if text.is_empty() && policy == Some("FallbackToLogsOnError") && container.exit_code != 0 {
        return log_tail(Path::new(&container.log_path)).unwrap_or_default();
    }
    text
}

fn head(path: &Path, limit: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a CRI log (`time stream P|F text`) without their heads.
fn log_tail(path: &Path) -> std::io::Result<String> {
    // Each line carries some 45 bytes of head.
    const READ_BYTES: u64 = LOG_BYTES_MAX * 4;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(READ_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().skip(usize::from(size > READ_BYTES)).collect();
    let mut out = String::new();
    for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES_MAX)) {
        let mut parts = line.splitn(4, ' ').skip(2);
        let (tag, said) = (parts.next().unwrap_or("F"), parts.next().unwrap_or_default());
        out.push_str(said);
        if tag != "P" {
            out.push('\n');
        }
    }
    let cut = out.len().saturating_sub(LOG_BYTES_MAX as usize);
    let cut = (cut..out.len()).find(|n| out.is_char_boundary(*n)).unwrap_or(0);
    Ok(out.split_off(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head = "2026-01-01T00:00:00.000000000Z stdout";
        std::fs::write(file.path(), format!("{head} F one\n{head} P tw\n{head} F o\n")).unwrap();
        assert_eq!(log_tail(file.path()).unwrap(), "one\ntwo\n");
        let long: String = (0..200).map(|n| format!("{head} F line {n}\n")).collect();
        std::fs::write(file.path(), long).unwrap();
        let tail = log_tail(file.path()).unwrap();
        assert!(tail.ends_with("line 199\n") && tail.lines().count() <= LOG_LINES_MAX);
    }
}
