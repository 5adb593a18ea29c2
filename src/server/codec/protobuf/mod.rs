//! Kubernetes protobuf, driven by the schema table: `k8s\0`, then a `runtime.Unknown` with the kind and the message.
//!
//! Structs embedded in Go are messages of their own here but flat in JSON ([`Field::outer`]).

use super::EventType;
use crate::object::{self, Object};
use crate::server::patch::Typed;
use crate::server::schema::check::canonicalize;
use crate::server::schema::{Field, TypeDef, builtin};
use crate::status::{Reason, Result, Status};
use serde_json::{Map, Value};

mod decode;
mod encode;
mod list;
mod wire;

pub use list::List;

/// What every Kubernetes protobuf body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Field numbers of `runtime.Unknown` and its `TypeMeta`.
mod unknown {
    pub const TYPE_META: u32 = 1;
    pub const RAW: u32 = 2;
    pub const API_VERSION: u32 = 1;
    pub const KIND: u32 = 2;
}

/// Field numbers of `meta.v1.WatchEvent`.
mod event {
    pub const TYPE: u32 = 1;
    pub const OBJECT: u32 = 2;
}

/// Messages nest no deeper (JSONSchemaProps is the one recursive type; upstream refuses at a depth of its own).
const DEPTH_MAX: usize = 100;

/// Fields of the message at `outer`, with the numbers of the embedded messages in it.
fn embedded(def: &TypeDef, outer: &[u32]) -> Vec<u32> {
    let depth = outer.len();
    let inside = |f: &&Field| depth < 2 && f.outer[..depth] == *outer && f.outer[depth] != 0;
    let mut numbers: Vec<u32> = def.fields.iter().filter(inside).map(|f| f.outer[depth]).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Whether a field belongs directly to the message at `outer`.
fn is_in(field: &Field, outer: &[u32]) -> bool {
    let depth = outer.len();
    field.outer[..depth] == *outer && field.outer[depth..].iter().all(|n| *n == 0)
}

/// Read an enveloped object into its canonical tree. `expected` names the kind where the envelope does not.
pub fn decode(body: &[u8], expected: (&str, &str, &str)) -> std::result::Result<Object, String> {
    let Some(envelope) = body.strip_prefix(MAGIC) else {
        return Err("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned());
    };
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in wire::fields(envelope) {
        match field? {
            (unknown::TYPE_META, wire::Value::Bytes(meta)) => {
                for field in wire::fields(meta) {
                    match field? {
                        (unknown::API_VERSION, wire::Value::Bytes(text)) => api_version = wire::text(text),
                        (unknown::KIND, wire::Value::Bytes(text)) => kind = wire::text(text),
                        _ => {}
                    }
                }
            }
            (unknown::RAW, wire::Value::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    if kind.is_empty() {
        kind = expected.2.to_owned();
    }
    if api_version.is_empty() {
        api_version = object::api_version(expected.0, expected.1);
    }
    let (group, version) = object::split_api_version(&api_version);
    let schema = builtin();
    let Some(ty) = schema.of(group, version, &kind) else {
        return Err(format!("no kind {kind:?} is registered for version {api_version:?}"));
    };
    let mut map = Map::new();
    decode::message(schema, ty, &[], raw, &mut map, 0)?;
    let mut object = Value::Object(map);
    canonicalize(&mut object, Typed { schema, ty });
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

/// Write an object in its envelope; 406 for kinds without protobuf.
pub fn encode(object: &Object) -> Result<Vec<u8>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = object::split_api_version(api_version);
    let schema = builtin();
    let found = schema.of(group, version, kind).zip(object.as_object());
    let Some((ty, map)) = found.filter(|(ty, _)| has_protobuf(schema.get(*ty))) else {
        let message = format!("object {api_version} {kind} does not implement the protobuf marshalling interface");
        return Err(Status::new(Reason::NotAcceptable, message));
    };
    let mut out = MAGIC.to_vec();
    wire::nested(&mut out, unknown::TYPE_META, |meta| {
        wire::bytes(meta, unknown::API_VERSION, api_version.as_bytes());
        wire::bytes(meta, unknown::KIND, kind.as_bytes());
    });
    wire::nested(&mut out, unknown::RAW, |raw| encode::message(schema, ty, &[], map, raw));
    // Upstream writes these two also when they are empty: contentEncoding, contentType.
    wire::bytes(&mut out, 3, b"");
    wire::bytes(&mut out, 4, b"");
    Ok(out)
}

fn has_protobuf(def: &TypeDef) -> bool {
    def.fields.is_empty() || def.fields.iter().any(|f| f.pb != 0)
}

/// One event of a watch: big-endian length, then a bare WatchEvent whose object is in its envelope.
pub fn watch_frame(kind: EventType, object: &Object) -> Result<Vec<u8>> {
    let encoded = encode(object)?;
    let mut out = vec![0; 4];
    wire::bytes(&mut out, event::TYPE, kind.as_str().as_bytes());
    // RawExtension has one field, `raw`.
    wire::nested(&mut out, event::OBJECT, |extension| wire::bytes(extension, 1, &encoded));
    let length = u32::try_from(out.len() - 4).map_err(Status::internal)?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests;
