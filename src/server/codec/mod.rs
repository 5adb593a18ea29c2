//! Bodies on the wire: JSON, YAML and Kubernetes protobuf, both ways, and what `Accept` and `Content-Type` ask for.
//!
//! The rest of the server sees trees ([`Object`]) only. Protobuf is driven by the schema table
//! ([`crate::server::schema`]); custom resources have none.

use crate::object::{self, Object};
use crate::status::{Result, Status};
use bytes::Bytes;
use serde_json::Value;

mod negotiate;
pub mod protobuf;
mod text;
mod yaml;

pub use negotiate::{accept, content_type, json_accepted, wants_discovery};
pub use text::PROBLEMS_MAX;

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Json, Format::Yaml, Format::Protobuf];

    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What a client wants to see instead of the object itself (`as=` of `Accept`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// The object as it is.
    #[default]
    Object,
    /// `meta.k8s.io` Table of this version (`v1`, `v1beta1`).
    Table(&'static str),
    /// PartialObjectMetadata of this `meta.k8s.io` version.
    Metadata(&'static str),
    /// PartialObjectMetadataList of this `meta.k8s.io` version.
    MetadataList(&'static str),
}

/// What the answer shall be. The default is compact JSON of the object itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark => "BOOKMARK",
            EventType::Error => "ERROR",
        }
    }
}

/// Read a request body. `expected` is the (group, version, kind) that a body without `apiVersion` and `kind` is taken
/// for; the tree always has both. Malformed bodies are 400. Whether the kind is the right one is the caller's to check
/// ([`expect`]).
pub fn decode_body(format: Format, body: &[u8], expected: (&str, &str, &str)) -> Result<Decoded> {
    let read = match format {
        Format::Json => text::from_json(body),
        Format::Yaml => text::from_yaml(body),
        Format::Protobuf => protobuf::decode(body, expected).map(|object| (object, Vec::new())),
    };
    let unreadable = |why: String| {
        let language = if format == Format::Yaml { "yaml" } else { "json" };
        let text = match format {
            Format::Protobuf => why,
            _ => format!("couldn't get version/kind; {language} parse error: {why}"),
        };
        let kind = expected.2;
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {text} ({})",
            summary(body)
        ))
    };
    let (mut object, problems) = read.map_err(unreadable)?;
    let Some(map) = object.as_object_mut() else {
        let what = json_type(&object);
        return Err(unreadable(format!("json: cannot unmarshal {what} into Go value of type v1.TypeMeta")));
    };
    for key in ["apiVersion", "kind"] {
        match map.get(key) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => {
                let what = json_type(other);
                let text = format!("json: cannot unmarshal {what} into Go struct field .{key} of type string");
                return Err(unreadable(text));
            }
        }
    }
    let (group, version, kind) = expected;
    let missing = |map: &serde_json::Map<String, Value>, key: &str| {
        map.get(key).is_none_or(|v| v.as_str().unwrap_or("").is_empty())
    };
    if missing(map, "kind") {
        map.insert("kind".to_owned(), kind.into());
    }
    if missing(map, "apiVersion") {
        map.insert("apiVersion".to_owned(), object::api_version(group, version).into());
    }
    Ok(Decoded { object, problems })
}

/// 400 unless a decoded body is of this group, version and kind.
pub fn expect(object: &Object, (group, version, kind): (&str, &str, &str)) -> Result<()> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    let (given, want) = (text("apiVersion"), object::api_version(group, version));
    if given != want {
        let message = format!("the API version in the data ({given}) does not match the expected API version ({want})");
        return Err(Status::bad_request(message));
    }
    let given = text("kind");
    if given != kind {
        let message = format!("{given} in version {version:?} cannot be handled as a {kind}: the kinds differ");
        return Err(Status::bad_request(message));
    }
    Ok(())
}

/// What Go calls the JSON type of a value in its decoder's errors.
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The beginning of a body for error messages, as upstream shows it: text if it looks like JSON, else hexadecimal.
fn summary(body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 30;
    let (head, dots) = if body.len() > SHOWN_BYTES { (&body[..SHOWN_BYTES], " ...") } else { (body, "") };
    let shown = match body.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|b| format!("{b:02x}")).collect(),
    };
    shown + dots
}

/// Write an object (also lists, Status, Table). Its `apiVersion` and `kind` choose the protobuf type; 406 in protobuf
/// for a kind that the schema table does not know.
pub fn encode(object: &Object, accepted: Accepted) -> Result<Bytes> {
    let bytes = match accepted.format {
        Format::Json => text::to_json(object, accepted.pretty).map_err(Status::internal)?,
        Format::Yaml => yaml::write(object).into_bytes(),
        Format::Protobuf => protobuf::encode(object)?,
    };
    Ok(bytes.into())
}

/// `Content-Type` of what [`encode`] made; with `watch`, of a stream of [`watch_frame`]s.
pub fn media_type(accepted: Accepted, watch: bool) -> &'static str {
    match accepted.format {
        Format::Protobuf if watch => "application/vnd.kubernetes.protobuf;stream=watch",
        // YAML has no stream form: such watches are JSON.
        _ if watch => Format::Json.media_type(),
        format => format.media_type(),
    }
}

/// One framed watch event: a line of JSON, or four bytes of length and a protobuf WatchEvent.
pub fn watch_frame(event: EventType, object: &Object, accepted: Accepted) -> Result<Bytes> {
    match accepted.format {
        Format::Protobuf => Ok(protobuf::watch_frame(event, object)?.into()),
        _ => {
            let bytes = serde_json::to_vec(object).map_err(Status::internal)?;
            Ok(watch_frame_json(event, &bytes))
        }
    }
}

/// [`watch_frame`] for JSON when the object's bytes are at hand already.
pub fn watch_frame_json(event: EventType, object: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(object.len() + 40);
    frame.extend_from_slice(br#"{"type":""#);
    frame.extend_from_slice(event.as_str().as_bytes());
    frame.extend_from_slice(br#"","object":"#);
    frame.extend_from_slice(object.trim_ascii_end());
    frame.extend_from_slice(b"}\n");
    frame.into()
}
