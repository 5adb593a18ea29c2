//! What `kedge backup` and `kedge store` ask of the running server, below `/kedge/store/`:
//!
//! | path | what |
//! |---|---|
//! | GET `snapshot` | the store at one revision, in the format of [`snapshots::format`] |
//! | POST `compact` | forget all history |
//! | POST `defrag` | give space back that nothing needs any more |
//!
//! Only who may do everything gets here: no role of ours names these paths.

use super::api::{Endpoint, endpoint, json_response};
use crate::status::{Result, Status};
use crate::store::{Error, Store, snapshots};
use axum::body::Body;
use http::{Method, Response};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::io::ReaderStream;

pub const PATH: &str = "/kedge/store";

/// Bytes of a snapshot sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// `scratch`: a directory for snapshots while they are sent.
pub fn serve(store: Arc<dyn Store>, scratch: PathBuf) -> Endpoint {
    endpoint(move |_, request| {
        let (store, scratch) = (store.clone(), scratch.clone());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Box::pin(async move { answer(&*store, &scratch, &method, &path).await })
    })
}

async fn answer(store: &dyn Store, scratch: &Path, method: &Method, path: &str) -> Result<Response<Body>> {
    match (method, path.strip_prefix(PATH).unwrap_or_default()) {
        (&Method::GET, "/snapshot") => {
            let file = snapshot(store, scratch).await?;
            let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
            Ok(Response::new(Body::from_stream(stream)))
        }
        (&Method::POST, "/compact") => {
            match store.compact(store.revision()).await {
                Ok(()) | Err(Error::Compacted(_)) => {}
                Err(error) => return Err(Status::internal(error)),
            }
            figures(store)
        }
        (&Method::POST, "/defrag") => {
            store.defragment().await.map_err(Status::internal)?;
            figures(store)
        }
        _ => Err(Status::no_such_path()),
    }
}

fn figures(store: &dyn Store) -> Result<Response<Body>> {
    let (revision, compacted) = (store.revision().0, store.compacted().0);
    json_response(&json!({"revision": revision, "compacted": compacted, "bytes": store.disk_bytes()}))
}

/// A snapshot in a file without a name, at its start.
async fn snapshot(store: &dyn Store, scratch: &Path) -> Result<File> {
    let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).clone();
    let file = options.open(scratch).map_err(|e| Status::internal(format!("{}: {e}", scratch.display())))?;
    let (_, out) = snapshots::write(store, BufWriter::new(file)).await.map_err(Status::internal)?;
    let mut file = out.into_inner().map_err(|e| Status::internal(e.error()))?;
    file.rewind().map_err(Status::internal)?;
    Ok(file)
}
