//! Pages of one snapshot: `limit` and `continue` with etcd-like tokens, and the store read in bounded pieces.

use super::{range_of, store_error, too_large_revision};
use crate::server::kinds::Kind;
use crate::server::request::options::{ListOptions, Match};
use crate::status::{Result, Status};
use crate::store::{self, KeyRange, KeyValue, RangeRequest, Revision, Store};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

/// Objects read from the store at once. Large lists are sent in such pieces, so that memory holds one at a time.
pub const PAGE_OBJECTS: usize = 500;

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Reads a range page by page, all at one revision.
pub struct Pager {
    store: Arc<dyn Store>,
    range: KeyRange,
    prefix: Bytes,
    /// The revision read at: unknown until the first page, if the list is of the most recent state.
    revision: Option<Revision>,
    /// What the list is answered with as its resourceVersion.
    snapshot: Revision,
    /// Keys left behind the last page.
    left: usize,
    done: bool,
    from_token: bool,
}

impl Pager {
    /// Start where the options say. `single`: only this name.
    pub fn new(
        store: Arc<dyn Store>,
        kind: &Kind,
        namespace: &str,
        single: Option<&str>,
        options: &ListOptions,
    ) -> Result<Self> {
        let whole = range_of(kind, namespace);
        let prefix = whole.start.clone();
        let range = match single {
            // A name alone is a key only if the namespace is known.
            Some(name) if !kind.is_namespaced() || !namespace.is_empty() => {
                KeyRange::key([&prefix[..], name.as_bytes()].concat())
            }
            _ => whole,
        };
        let mut pager = Pager {
            store,
            range,
            prefix,
            revision: None,
            snapshot: Revision(0),
            left: 0,
            done: false,
            from_token: false,
        };
        if options.continue_token.is_empty() {
            pager.start_at(options)?;
        } else {
            pager.resume(options)?;
        }
        Ok(pager)
    }

    fn start_at(&mut self, options: &ListOptions) -> Result<()> {
        let Some(asked) = options.revision.filter(|r| r.0 > 0) else { return Ok(()) };
        let current = self.store.revision();
        if asked > current {
            return Err(too_large_revision(current));
        }
        // A limited list at a revision means exactly that revision, unless it says otherwise (upstream's legacy rule).
        let exact =
            options.revision_match == Match::Exact || (options.revision_match == Match::Unset && options.limit > 0);
        if exact {
            self.revision = Some(asked);
        }
        Ok(())
    }

    fn resume(&mut self, options: &ListOptions) -> Result<()> {
        if options.revision.is_some_and(|r| r.0 > 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (revision, start) = decode(&options.continue_token)?;
        self.revision = revision;
        self.from_token = true;
        self.range.start = [&self.prefix[..], start.as_bytes()].concat().into();
        Ok(())
    }

    /// The snapshot's revision; known after the first page.
    pub fn snapshot(&self) -> Revision {
        self.snapshot
    }

    /// Keys of the range behind what has been read.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next at most `limit` keys; empty at the end.
    pub async fn page(&mut self, limit: usize) -> Result<Vec<KeyValue>> {
        if self.done {
            return Ok(Vec::new());
        }
        let request = RangeRequest { revision: self.revision, limit, ..RangeRequest::of(self.range.clone()) };
        let found = self.store.range(request).await.map_err(|error| self.error(error))?;
        let revision = *self.revision.get_or_insert(found.revision);
        self.snapshot = revision;
        self.left = found.count.saturating_sub(found.kvs.len());
        self.done = !found.more;
        if let Some(last) = found.kvs.last() {
            self.range.start = [&last.key[..], &[0]].concat().into();
        }
        Ok(found.kvs)
    }

    fn error(&self, error: store::Error) -> Status {
        if !matches!(error, store::Error::Compacted(_)) || !self.from_token {
            return store_error(error);
        }
        let mut status = Status::expired(EXPIRED_TOKEN);
        status.list_continue = Some(encode(None, &self.position(&self.range.start)).into());
        status
    }

    /// The token to go on behind `key`.
    pub fn token_behind(&self, key: &[u8]) -> String {
        encode(Some(self.snapshot), &format!("{}\0", self.position(key)))
    }

    fn position(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(key.strip_prefix(&self.prefix[..]).unwrap_or(key)).into_owned()
    }
}

/// `start` is relative to the kind's (or namespace's) prefix. No revision: go on with whatever is there now.
fn encode(revision: Option<Revision>, start: &str) -> String {
    let revision = revision.map_or(-1, |r| r.0 as i64);
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode(token: &str) -> Result<(Option<Revision>, String)> {
    let bad = || Status::bad_request("continue key is not valid: incorrect encoding");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    if text("v") != "meta.k8s.io/v1" {
        return Err(Status::bad_request("continue key is not valid: server does not recognize this encoded version"));
    }
    let start = text("start");
    if start.is_empty() || start.split('/').any(|part| part == ".." || part == ".") {
        return Err(Status::bad_request("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"));
    }
    match value.get("rv").and_then(Value::as_i64) {
        None | Some(0) => Err(Status::bad_request(
            "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        )),
        Some(revision) => Ok(((revision > 0).then_some(Revision(revision as u64)), start.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        for (revision, start) in [(Some(Revision(7)), "ns/name\0"), (None, "a")] {
            assert_eq!(decode(&encode(revision, start)).unwrap(), (revision, start.to_owned()));
        }
        let forged = |v: Value| BASE64_URL_SAFE_NO_PAD.encode(v.to_string());
        for bad in [
            "???".to_owned(),
            forged(json!({"v": "v9", "rv": 1, "start": "a"})),
            forged(json!({"v": "meta.k8s.io/v1", "rv": 0, "start": "a"})),
            forged(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": ""})),
            forged(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": "../x"})),
        ] {
            assert_eq!(decode(&bad).unwrap_err().reason, crate::status::Reason::BadRequest, "{bad}");
        }
    }
}
