//! Lists written item by item, so that the trees of a long list need not be in memory together.

use super::{MAGIC, encode, has_protobuf, unknown, wire};
use crate::object::Object;
use crate::server::patch::Typed;
use crate::server::schema::{Schema, TypeId};
use crate::status::{Reason, Result, Status};
use serde_json::Value;

/// Field numbers that all lists share.
const METADATA: u32 = 1;
const ITEMS: u32 = 2;

/// A list under way.
pub struct List {
    schema: &'static Schema,
    list: TypeId,
    item: TypeId,
    head: Vec<u8>,
    items: Vec<u8>,
}

impl List {
    /// A list of this type (`v1`, `PodList`) with items of type `item`; 406 where there is no protobuf for it.
    pub fn new(api_version: &str, list_kind: &str, item: Typed<'static>) -> Result<Self> {
        let (group, version) = crate::object::split_api_version(api_version);
        let schema = item.schema;
        let list = schema.of(group, version, list_kind).filter(|ty| has_protobuf(schema.get(*ty)));
        let Some(list) = list else {
            let why = format!("object {api_version} {list_kind} does not implement the protobuf marshalling interface");
            return Err(Status::new(Reason::NotAcceptable, why));
        };
        let mut head = MAGIC.to_vec();
        wire::nested(&mut head, unknown::TYPE_META, |meta| {
            wire::bytes(meta, unknown::API_VERSION, api_version.as_bytes());
            wire::bytes(meta, unknown::KIND, list_kind.as_bytes());
        });
        Ok(List { schema, list, item: item.ty, head, items: Vec::new() })
    }

    pub fn push(&mut self, item: &Object) {
        if let Value::Object(map) = item {
            wire::nested(&mut self.items, ITEMS, |out| encode::message(self.schema, self.item, &[], map, out));
        }
    }

    /// The whole body. `meta` is the list's metadata.
    pub fn finish(self, meta: &Value) -> Vec<u8> {
        let mut raw = Vec::new();
        // The list's own message writes the metadata alone, with the type the schema gives it.
        let only_meta = [("metadata".to_owned(), meta.clone())].into_iter().collect();
        encode::message(self.schema, self.list, &[], &only_meta, &mut raw);
        debug_assert!(raw.is_empty() || raw[0] >> 3 == METADATA as u8);
        raw.extend_from_slice(&self.items);
        let mut out = self.head;
        wire::bytes(&mut out, unknown::RAW, &raw);
        wire::bytes(&mut out, 3, b"");
        wire::bytes(&mut out, 4, b"");
        out
    }
}
