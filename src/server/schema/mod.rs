//! The schema table: types of every served kind as data (DESIGN D2). It drives strict decoding, pruning, strategic
//! merge, server-side apply, protobuf and OpenAPI. The table is parsed once from `table.tsv`, which
//! `scripts/schema.py` writes; names are slices of that text in the executable, so that the table costs well under a
//! megabyte. CRDs add types at run time.

use serde_json::Value;
use std::collections::HashMap;

mod canonical;
pub mod check;
mod load;
mod trail;

pub use canonical::zero;
pub(crate) use canonical::{base64, parse_duration, parse_time, print_duration, unbase64};
pub use trail::Trail;

/// A type in the table. Ids are indices and stable for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// What a field or list element holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Float64,
    /// Base64 in JSON, raw in protobuf.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Go duration string.
    Duration,
    /// `runtime.RawExtension`: any object, kept as it is.
    Raw,
    /// `metav1.FieldsV1`.
    FieldsV1,
    /// Any JSON (JSONSchemaProps.default and the like).
    Json,
    /// JSONSchemaProps (the type of this id) or something simpler in its place.
    SchemaOr(TypeId, Instead),
    Struct(TypeId),
    List(Box<Type>),
    Map(Box<Type>),
}

/// What may stand where a JSONSchemaProps is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// `items`: a list of schemas.
    Schemas,
    /// `additionalProperties`: true or false.
    Bool,
    /// `dependencies`: a list of property names.
    Strings,
}

/// How server-side apply and strategic merge treat a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// By these keys.
    Map(Vec<&'static str>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatchStrategy {
    /// `merge` rather than replace (lists), or deep merge (maps are always merged).
    pub merge: bool,
    pub retain_keys: bool,
    pub merge_key: Option<&'static str>,
}

/// One field of a struct type.
#[derive(Clone, Debug)]
pub struct Field {
    pub json: &'static str,
    pub ty: Type,
    pub required: bool,
    /// A Go pointer: absent and zero differ.
    pub pointer: bool,
    pub omitempty: bool,
    /// Never written when zero, also for structs (`json:",omitzero"`).
    pub omitzero: bool,
    /// The Go type as upstream's decoder names it in errors: `int32`, `v1.PodSpec`, `[]v1.Container`.
    pub go: &'static str,
    /// Protobuf field number, 0 where there is none.
    pub pb: u32,
    /// Structs embedded in Go are flat in JSON and messages of their own in protobuf: the numbers of those messages,
    /// outermost first, zero-padded.
    pub outer: [u32; 2],
    /// Names of those structs, "RuleWithOperations.Rule": upstream's decoder names them in errors.
    pub embedded: &'static str,
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic` / struct type atomic: replaced as a whole by apply.
    pub atomic: bool,
    pub patch: PatchStrategy,
    /// `default` of the OpenAPI schema.
    pub default: Option<Value>,
    /// A list that is a message of its own in protobuf, so that empty and absent differ (`metav1.Verbs`).
    pub wrapped: bool,
}

/// A struct type.
#[derive(Clone, Debug)]
pub struct TypeDef {
    /// OpenAPI definition name: `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// Sorted by `json` for lookup.
    pub fields: Vec<Field>,
    /// (group, version, kind) where this is a top-level kind; `("*", "*", kind)` for what belongs to every group.
    pub gvks: Vec<(&'static str, &'static str, &'static str)>,
    /// Struct-level `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
}

impl TypeDef {
    pub fn field(&self, json: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.json.cmp(json)).ok().map(|i| &self.fields[i])
    }
}

impl TypeDef {
    /// Go's name of the type without its package: `PodSpec`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// The table. `schema::builtin()` is the compiled-in one.
#[derive(Default)]
pub struct Schema {
    pub types: Vec<TypeDef>,
    kinds: HashMap<(&'static str, &'static str, &'static str), TypeId>,
    names: HashMap<&'static str, TypeId>,
}

impl Schema {
    /// A table of these types.
    pub fn new(types: Vec<TypeDef>) -> Self {
        let mut schema = Schema { types, ..Default::default() };
        for (i, def) in schema.types.iter().enumerate() {
            let id = TypeId(i as u32);
            schema.names.insert(def.name, id);
            schema.kinds.extend(def.gvks.iter().map(|gvk| (*gvk, id)));
        }
        schema
    }

    pub fn get(&self, id: TypeId) -> &TypeDef {
        &self.types[id.0 as usize]
    }

    /// The type of a kind.
    pub fn of(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.kinds.get(&(group, version, kind)).or_else(|| self.kinds.get(&("*", "*", kind))).copied()
    }

    /// The type with this OpenAPI definition name.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }
}

/// The built-in table, loaded on first use.
pub fn builtin() -> &'static Schema {
    static TABLE: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(|| load::table(include_str!("table.tsv")));
    &TABLE
}
