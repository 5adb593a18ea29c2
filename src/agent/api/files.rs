//! `/logs/`: the files below /var/log, as upstream's kubelet serves them: directories as a list of links.

use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::query::unescape;
use axum::body::Body;
use http::{HeaderValue, Response, header};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use tokio_util::io::ReaderStream;

const ROOT: &str = "/var/log";

/// What is found.
enum Found {
    Directory(Vec<String>),
    File(File),
}

/// Answer for a path below `/logs`.
pub async fn serve(path: &str) -> Result<Response<Body>> {
    let file = below(Path::new(ROOT), &unescape(path)).ok_or_else(|| Status::bad_request("invalid path"))?;
    let found = Group::blocking(move || open(&file)).await.map_err(Status::internal)?;
    let (kind, body) = match found {
        Ok(Found::Directory(names)) => ("text/html; charset=utf-8", Body::from(page(&names))),
        Ok(Found::File(file)) => {
            let stream = ReaderStream::new(tokio::fs::File::from_std(file));
            ("text/plain; charset=utf-8", Body::from_stream(stream))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Status::no_such_path()),
        Err(error) => return Err(Status::internal(error)),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// The file meant; None for what would leave the root.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let mut file = root.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => file.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => return None,
        }
    }
    Some(file)
}

/// Links below the root may point to pods' logs, not out of /var: a pod could have made them.
fn open(file: &Path) -> std::io::Result<Found> {
    let real = file.canonicalize()?;
    if !real.starts_with("/var") {
        return Err(ErrorKind::NotFound.into());
    }
    if !real.is_dir() {
        return Ok(Found::File(File::open(real)?));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(real)? {
        let entry = entry?;
        let slash = if entry.path().is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(Found::Directory(names))
}

fn page(names: &[String]) -> String {
    let escape = |s: &str| s.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let lines: String = names.iter().map(|n| format!("<a href=\"{0}\">{0}</a>\n", escape(n))).collect();
    format!("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{lines}</pre>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_above_the_root() {
        let root = Path::new("/var/log");
        for (path, expected) in [
            ("", Some("/var/log")),
            ("/pods/x", Some("/var/log/pods/x")),
            ("pods/./x", Some("/var/log/pods/x")),
            ("../../etc/passwd", None),
            ("pods/../../x", None),
        ] {
            assert_eq!(below(root, path), expected.map(PathBuf::from), "{path}");
        }
        assert_eq!(page(&["a<b/".to_owned()]).matches("a&lt;b/").count(), 2);
    }
}
