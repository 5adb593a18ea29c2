//! Bodies on the wire: JSON, YAML and Kubernetes protobuf, both ways, and what `Accept` and `Content-Type` ask for.
//!
//! The rest of the server sees trees ([`Object`]) only. Protobuf is driven by the schema table
//! ([`crate::server::schema`]); custom resources have none.

use crate::object::Object;
use crate::status::Result;
use bytes::Bytes;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// What a client wants to see instead of the object itself (`as=` of `Accept`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The object as it is.
    Object,
    /// `meta.k8s.io` Table of this version (`v1`, `v1beta1`).
    Table(&'static str),
    /// PartialObjectMetadata of this `meta.k8s.io` version.
    Metadata(&'static str),
    /// PartialObjectMetadataList of this `meta.k8s.io` version.
    MetadataList(&'static str),
}

/// What the answer shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub format: Format,
    pub view: View,
    /// Indented JSON (`pretty=1`).
    pub pretty: bool,
}

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// False for custom resources.
    pub protobuf: bool,
    /// Table and PartialObjectMetadata (resources: yes; subresources with other bodies, discovery: no).
    pub views: bool,
}

/// A request body, read but not yet checked against the schema.
#[derive(Debug)]
pub struct Decoded {
    pub object: Object,
    /// Strict decoding problems that the tree no longer shows: `duplicate field "spec.replicas"`.
    pub problems: Vec<String>,
}

/// Kind of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// What an `Accept` header asks for, best first; 406 when nothing on offer fits. An absent or empty header means JSON.
pub fn accept(_header: Option<&str>, _offer: Offer) -> Result<Accepted> {
    todo!()
}

/// The format of a request body from `Content-Type` (absent: JSON); 415 when it is none of ours.
pub fn content_type(_header: Option<&str>) -> Result<Format> {
    todo!()
}

/// Read a request body. `expected` is the (group, version, kind) that a body without `apiVersion` and `kind` is taken
/// for. Malformed bodies are 400.
pub fn decode_body(_format: Format, _body: &[u8], _expected: (&str, &str, &str)) -> Result<Decoded> {
    todo!()
}

/// Write an object (also lists, Status, Table). Its `apiVersion` and `kind` choose the protobuf type; a kind that the
/// schema table does not know is written as JSON inside the protobuf envelope.
pub fn encode(_object: &Object, _accepted: Accepted) -> Result<Bytes> {
    todo!()
}

/// `Content-Type` of what [`encode`] made; with `watch`, of a stream of [`watch_frame`]s.
pub fn media_type(_accepted: Accepted, _watch: bool) -> &'static str {
    todo!()
}

/// One framed watch event: a line of JSON, or four bytes of length and a protobuf WatchEvent.
pub fn watch_frame(_event: EventType, _object: &Object, _accepted: Accepted) -> Result<Bytes> {
    todo!()
}

/// [`watch_frame`] for JSON when the object's bytes are at hand already.
pub fn watch_frame_json(_event: EventType, _object: &[u8]) -> Bytes {
    todo!()
}
