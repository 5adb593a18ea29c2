//! Types as OpenAPI v3 component schemas.

use super::descriptions::{Described, Descriptions};
use crate::object::api_version;
use crate::server::schema::{Field, ListType, Schema, Type, TypeDef, TypeId, builtin};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Types that are no structs in JSON but have definitions of their own.
fn special(ty: &Type) -> Option<(&'static str, Value)> {
    Some(match ty {
        Type::Quantity => (
            "io.k8s.apimachinery.pkg.api.resource.Quantity",
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ),
        Type::IntOrString => (
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        Type::Time => ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", json!({"type": "string", "format": "date-time"})),
        Type::MicroTime => {
            ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", json!({"type": "string", "format": "date-time"}))
        }
        Type::Raw => ("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"})),
        Type::FieldsV1 => ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", json!({"type": "object"})),
        _ => return None,
    })
}

/// The name under which `#/components/schemas/` has the type of a kind.
pub fn name_of(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    let schema = builtin();
    schema.of(group, version, kind).map(|id| schema.get(id).name)
}

pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Everything that one document needs, found before anything is written: descriptions are read in one pass.
#[derive(Default)]
struct Needed {
    structs: BTreeSet<TypeId>,
    specials: Vec<Type>,
}

impl Needed {
    fn add(&mut self, schema: &Schema, ty: &Type) {
        match ty {
            Type::Struct(id) | Type::SchemaOr(id, _) if self.structs.insert(*id) => {
                schema.get(*id).fields.iter().for_each(|field| self.add(schema, &field.ty));
            }
            Type::List(element) | Type::Map(element) => self.add(schema, element),
            other if special(other).is_some() && !self.specials.contains(other) => self.specials.push(other.clone()),
            _ => {}
        }
    }
}

/// The schemas of these types (by definition name) and of all they refer to, sorted by name.
pub fn each<E>(names: &BTreeSet<&str>, mut sink: impl FnMut(&str, Value) -> Result<(), E>) -> Result<(), E> {
    let schema = builtin();
    let mut needed = Needed::default();
    for name in names {
        schema.named(name).into_iter().for_each(|id| needed.add(schema, &Type::Struct(id)));
    }
    let mut all: BTreeMap<&str, Shape> =
        needed.structs.iter().map(|id| (schema.get(*id).name, Shape::Struct(*id))).collect();
    all.extend(needed.specials.iter().filter_map(special).map(|(name, value)| (name, Shape::Known(value))));
    if names.contains(PATCH) {
        all.insert(PATCH, Shape::Known(json!({"type": "object"})));
    }
    let mut descriptions = Descriptions::open();
    for (name, shape) in all {
        let described = descriptions.of(name);
        let value = match shape {
            Shape::Struct(id) => structure(schema, schema.get(id), &described),
            Shape::Known(mut value) => {
                described.text.into_iter().for_each(|text| value["description"] = text.into());
                value
            }
        };
        sink(name, value)?;
    }
    Ok(())
}

enum Shape {
    Struct(TypeId),
    Known(Value),
}

/// What patches are, as far as OpenAPI knows.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

fn structure(schema: &Schema, def: &TypeDef, described: &Described) -> Value {
    let mut out = Map::new();
    if let Some(text) = &described.text {
        out.insert("description".to_owned(), text.as_str().into());
    } else if let Some(item) = def.short_name().strip_suffix("List").filter(|_| !def.gvks.is_empty()) {
        out.insert("description".to_owned(), format!("{} is a list of {item}.", def.short_name()).into());
    }
    out.insert("type".to_owned(), "object".into());
    let properties: Map<String, Value> =
        def.fields.iter().map(|field| (field.json.to_owned(), property(schema, def, field, described))).collect();
    if !properties.is_empty() {
        out.insert("properties".to_owned(), Value::Object(properties));
    }
    let required: Vec<&str> = def.fields.iter().filter(|f| f.required).map(|f| f.json).collect();
    if !required.is_empty() {
        out.insert("required".to_owned(), json!(required));
    }
    if def.atomic {
        out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    let gvk = |(group, version, kind): &(&str, &str, &str)| match *group {
        // Registered everywhere: the core group stands for all.
        "*" => json!({"group": "", "version": "v1", "kind": kind}),
        group => json!({"group": group, "version": version, "kind": kind}),
    };
    if !def.gvks.is_empty() {
        out.insert("x-kubernetes-group-version-kind".to_owned(), def.gvks.iter().map(gvk).collect());
    }
    Value::Object(out)
}

fn property(schema: &Schema, def: &TypeDef, field: &Field, described: &Described) -> Value {
    let mut value = of_type(schema, &field.ty);
    // A reference takes no siblings in OpenAPI 3.0.
    if value.get("$ref").is_some() {
        value = json!({"allOf": [value]});
    }
    let Value::Object(out) = &mut value else { return value };
    let text = described.field(field.json).or_else(|| common(field.json, def));
    if let Some(text) = text {
        out.insert("description".to_owned(), text.into());
    }
    if let Some(default) = &field.default {
        out.insert("default".to_owned(), default.clone());
    }
    match (&field.list, &field.ty) {
        (ListType::Set, _) => drop(out.insert("x-kubernetes-list-type".to_owned(), "set".into())),
        (ListType::Map(keys), _) => {
            out.insert("x-kubernetes-list-type".to_owned(), "map".into());
            out.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
        }
        (ListType::Atomic, Type::List(_)) => drop(out.insert("x-kubernetes-list-type".to_owned(), "atomic".into())),
        _ => {}
    }
    if field.atomic {
        out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    let strategies = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    if !strategies.is_empty() {
        out.insert("x-kubernetes-patch-strategy".to_owned(), strategies.join(",").into());
    }
    if let Some(key) = field.patch.merge_key {
        out.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
    }
    value
}

/// Descriptions of what every list has: the dependency does not describe list types.
fn common(field: &str, def: &TypeDef) -> Option<&'static str> {
    if def.gvks.is_empty() || !def.short_name().ends_with("List") {
        return None;
    }
    match field {
        "apiVersion" => Some("The version of the schema that this object is written in."),
        "kind" => Some("What kind of object this is."),
        "metadata" => Some("Metadata of the list: its revision and where it continues."),
        "items" => Some("The objects of the list."),
        _ => None,
    }
}

fn of_type(schema: &Schema, ty: &Type) -> Value {
    match ty {
        Type::String | Type::Duration => json!({"type": "string"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Float64 => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Json | Type::SchemaOr(..) => json!({}),
        Type::Struct(id) => reference(schema.get(*id).name),
        Type::List(element) => json!({"type": "array", "items": of_type(schema, element)}),
        Type::Map(element) => json!({"type": "object", "additionalProperties": of_type(schema, element)}),
        Type::Quantity | Type::IntOrString | Type::Time | Type::MicroTime | Type::Raw | Type::FieldsV1 => {
            special(ty).map_or(json!({}), |(name, _)| reference(name))
        }
    }
}

/// `apps/v1` Deployment as operations are marked with it.
pub fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Definition names of what operations take besides the kinds themselves.
pub fn meta(kind: &str) -> String {
    format!("{META}{kind}")
}

/// The tag of a group-version's operations: `apps_v1`, `core_v1`.
pub fn tag(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    api_version(group, version).replace('/', "_")
}
