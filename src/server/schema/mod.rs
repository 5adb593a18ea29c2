//! The schema table: types of every served kind as data (DESIGN D2). It drives strict decoding, pruning, strategic
//! merge, server-side apply, protobuf and OpenAPI. The table is loaded once from a compressed file in the
//! repository; CRDs add types at run time.

use serde_json::Value;

pub mod check;

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
    Struct(TypeId),
    List(Box<Type>),
    Map(Box<Type>),
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
    /// Embedded without a name of its own (`json:",inline"`).
    pub inline: bool,
    /// Protobuf field number, 0 where unknown.
    pub pb: u32,
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic` / struct type atomic: replaced as a whole by apply.
    pub atomic: bool,
    pub patch: PatchStrategy,
    /// `default` of the OpenAPI schema.
    pub default: Option<Value>,
}

/// A struct type.
#[derive(Clone, Debug)]
pub struct TypeDef {
    /// OpenAPI definition name: `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// Sorted by `json` for lookup.
    pub fields: Vec<Field>,
    /// (group, version, kind) where this is a top-level kind.
    pub gvks: Vec<(&'static str, &'static str, &'static str)>,
    /// Struct-level `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
}

impl TypeDef {
    pub fn field(&self, json: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.json.cmp(json)).ok().map(|i| &self.fields[i])
    }
}

/// The table. `schema::builtin()` is the compiled-in one.
#[derive(Default)]
pub struct Schema {
    pub types: Vec<TypeDef>,
}

impl Schema {
    pub fn get(&self, id: TypeId) -> &TypeDef {
        &self.types[id.0 as usize]
    }

    /// The type of a kind.
    pub fn of(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let matches = |d: &TypeDef| d.gvks.iter().any(|g| *g == (group, version, kind));
        self.types.iter().position(matches).map(|i| TypeId(i as u32))
    }
}

/// The built-in table, loaded on first use.
pub fn builtin() -> &'static Schema {
    static TABLE: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::default);
    &TABLE
}
