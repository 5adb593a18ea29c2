//! OpenAPI v3: an index with hashes and one document a group-version, built when asked for from the schema and kinds
//! tables and not kept (clients cache them by hash).

use crate::object::api_version;
use crate::server::codec::json_accepted;
use crate::server::discovery::digest;
use crate::server::document::{Asked, Body, Document};
use crate::server::kinds::Kind;
use crate::status::{Reason, Result, Status};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

mod descriptions;
mod paths;
mod schemas;

/// State of the sources that documents are made from; set by build.rs.
const STATE: &str = env!("KEDGE_OPENAPI_STATE");

/// A document whose address holds its hash never changes.
const FOREVER: &str = "public, immutable, max-age=31536000";

/// Answer `/openapi/v3` and below, and `/openapi/v2`; None for any other path.
pub fn serve(asked: Asked<'_>, kinds: &[&Kind]) -> Option<Result<Document>> {
    match asked.path.trim_end_matches('/') {
        // Clients that ask for v2 take 406 for "use v3".
        "/openapi/v2" => Some(Err(not_acceptable())),
        "/openapi/v3" => Some(index(asked, kinds)),
        path => {
            let name = path.strip_prefix("/openapi/v3/")?;
            Some(document(asked, kinds, name))
        }
    }
}

fn not_acceptable() -> Status {
    Status::new(Reason::NotAcceptable, "only the following media types are accepted: application/json")
}

/// `api/v1`, `apis/apps/v1`: how OpenAPI names a group-version.
fn name_of(group: &str, version: &str) -> String {
    let prefix = if group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", api_version(group, version))
}

/// The hash of a group-version's document: it covers everything that document is made from.
fn hash(kinds: &[&Kind], group: &str, version: &str) -> String {
    let members = kinds.iter().filter(|k| k.group == group && k.version == version);
    let fact = |k: &&Kind| format!("{} {} {:?}\n", k.kind, k.plural, (k.verbs, k.scope, k.subresources));
    let mut facts: Vec<String> = members.map(fact).collect();
    facts.sort_unstable();
    let facts = facts.concat();
    let name = name_of(group, version);
    digest(&[STATE.as_bytes(), env!("CARGO_PKG_VERSION").as_bytes(), name.as_bytes(), facts.as_bytes()])
}

fn index(asked: Asked<'_>, kinds: &[&Kind]) -> Result<Document> {
    let mut paths = Map::new();
    for kind in kinds {
        let name = name_of(kind.group, kind.version);
        if !paths.contains_key(&name) {
            let hash = hash(kinds, kind.group, kind.version);
            let url = format!("/openapi/v3/{name}?hash={hash}");
            paths.insert(name, json!({"serverRelativeURL": url}));
        }
    }
    let bytes = serde_json::to_vec(&json!({"paths": paths})).map_err(Status::internal)?;
    let etag = format!("\"{}\"", digest(&[&bytes]));
    answer(asked, etag, None, || Ok(bytes))
}

fn document(asked: Asked<'_>, kinds: &[&Kind], name: &str) -> Result<Document> {
    let (group, version) = match name.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Status::no_such_path()),
    };
    if !kinds.iter().any(|k| k.group == group && k.version == version) {
        return Err(Status::no_such_path());
    }
    let hash = hash(kinds, group, version);
    let cache = match asked.param("hash") {
        Some(asked) if asked != hash => {
            return Ok(Document::Moved { location: format!("/openapi/v3/{name}?hash={hash}") });
        }
        Some(_) => Some(FOREVER),
        None => None,
    };
    answer(asked, format!("\"{hash}\""), cache, || {
        let members: Vec<&Kind> = kinds.iter().copied().filter(|k| k.group == group && k.version == version).collect();
        build(&members).map_err(Status::internal)
    })
}

fn answer(
    asked: Asked<'_>,
    etag: String,
    cache_control: Option<&'static str>,
    make: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Document> {
    if !json_accepted(asked.accept) {
        return Err(not_acceptable());
    }
    if asked.holds(&etag) {
        return Ok(Document::NotModified { etag });
    }
    let bytes = make()?.into();
    let content_type = "application/json".to_owned();
    Ok(Document::Body(Body { bytes, content_type, etag: Some(etag), vary_accept: true, cache_control }))
}

/// The document of one group-version. It is written piece by piece: the whole tree would be ten times its text.
fn build(kinds: &[&Kind]) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(DOCUMENT_BYTES);
    let head = json!({"title": "Kubernetes", "version": "v1.37.0"});
    out.extend_from_slice(format!(r#"{{"openapi":"3.0.0","info":{head},"paths":{{"#).as_bytes());
    let mut used = BTreeSet::new();
    let mut entries = Entries::default();
    for kind in kinds {
        for (path, item) in paths::of(kind, &mut used) {
            entries.add(&mut out, &path, &item)?;
        }
    }
    out.extend_from_slice(br#"},"components":{"schemas":{"#);
    let mut entries = Entries::default();
    schemas::each(&used, |name, schema| entries.add(&mut out, name, &schema))?;
    let security = json!({"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
        "description": "Bearer Token authentication"}});
    out.extend_from_slice(format!(r#"}},"securitySchemes":{security}}}}}"#).as_bytes());
    Ok(out)
}

/// Room for most documents.
const DOCUMENT_BYTES: usize = 256 << 10;

/// Members of a JSON object that is being written.
#[derive(Default)]
struct Entries {
    some: bool,
}

impl Entries {
    fn add(&mut self, out: &mut Vec<u8>, key: &str, value: &Value) -> serde_json::Result<()> {
        if std::mem::replace(&mut self.some, true) {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key)?;
        out.push(b':');
        serde_json::to_writer(out, value)
    }
}

#[cfg(test)]
mod tests;
