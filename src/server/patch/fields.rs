//! Sets of field paths (structured-merge-diff's `fieldpath.Set`) in their wire form `FieldsV1`, and how they are read
//! off typed objects.
//!
//! A path element is its wire text: `f:name` a struct field or map key, `k:{"name":"x"}` an item of a keyed list,
//! `v:"x"` an item of a set. A node without children is always a member; one with children is a member when marked
//! (wire: a child named `.`).

use crate::server::schema::{Field, ListType, Schema, Type};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths as a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    pub member: bool,
    pub children: BTreeMap<String, Set>,
}

impl Set {
    pub fn leaf() -> Self {
        Set { member: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// From `fieldsV1`. Anything that is not an object is the empty set.
    pub fn from_wire(value: &Value) -> Self {
        let Value::Object(map) = value else { return Set::default() };
        let children: BTreeMap<String, Set> = map
            .iter()
            .filter(|(key, _)| key.as_str() != ".")
            .map(|(key, child)| (key.clone(), Set::node_from_wire(child)))
            .collect();
        Set { member: map.contains_key("."), children }
    }

    fn node_from_wire(value: &Value) -> Self {
        let mut set = Set::from_wire(value);
        set.member |= set.children.is_empty();
        set
    }

    /// To `fieldsV1`.
    pub fn to_wire(&self) -> Value {
        let mut map: Map<String, Value> = self.children.iter().map(|(k, c)| (k.clone(), c.to_wire())).collect();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        Value::Object(map)
    }

    pub fn union(&mut self, other: &Set) {
        self.member |= other.member;
        for (key, child) in &other.children {
            self.children.entry(key.clone()).or_default().union(child);
        }
    }

    /// Members of both.
    pub fn intersection(&self, other: &Set) -> Set {
        let both = |(key, child): (&String, &Set)| {
            let common = child.intersection(other.children.get(key)?);
            (!common.is_empty()).then(|| (key.clone(), common))
        };
        Set { member: self.member && other.member, children: self.children.iter().filter_map(both).collect() }
    }

    /// Remove the members of `other`.
    pub fn subtract(&mut self, other: &Set) {
        self.member &= !other.member;
        for (key, child) in &other.children {
            if let Some(mine) = self.children.get_mut(key) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(key);
                }
            }
        }
    }

    /// Drop a path and all below it.
    pub fn remove_subtree(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.children.remove(*first);
        } else if let Some(child) = self.children.get_mut(*first) {
            child.remove_subtree(rest);
            if child.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    /// All members as readable paths: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        if self.member {
            out.push(prefix.to_owned());
        }
        for (key, child) in &self.children {
            child.collect(&format!("{prefix}{}", readable(key)), out);
        }
    }

    /// The set of a typed value: its leaves, its atomic parts, its list items, the keys of its maps.
    pub fn of(value: &Value, ty: Shape<'_>, schema: &Schema) -> Set {
        match children(value, ty, schema) {
            None => Set::leaf(),
            Some(parts) => {
                let mut set = Set::default();
                for part in parts {
                    let mut child = Set::of(part.value, part.shape, schema);
                    let hollow = matches!(part.value, Value::Null) || part.value.as_object().is_some_and(Map::is_empty);
                    child.member |= part.owned || hollow;
                    if !child.is_empty() {
                        set.children.insert(part.element, child);
                    }
                }
                set
            }
        }
    }
}

/// `f:a` → `.a`, `k:{"name":"x"}` → `[name="x"]`, `v:1` → `[=1]`.
fn readable(element: &str) -> String {
    let (kind, rest) = element.split_at(element.len().min(2));
    match kind {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let shown: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", shown.join(","))
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}

/// The type of a value together with what its field says about lists and atomicity.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    pub ty: Option<&'a Type>,
    pub list: &'a ListType,
    pub atomic: bool,
}

impl<'a> Shape<'a> {
    pub fn root(ty: &'a Type) -> Self {
        Shape { ty: Some(ty), list: &ListType::Atomic, atomic: false }
    }

    /// Values the schema does not know: maps merge, lists are atomic (structured-merge-diff's deduced type).
    fn unknown() -> Self {
        Shape { ty: None, list: &ListType::Atomic, atomic: false }
    }

    fn of(field: &'a Field) -> Self {
        Shape { ty: Some(&field.ty), list: &field.list, atomic: field.atomic }
    }

    fn element(ty: &'a Type) -> Self {
        Shape { ty: Some(ty), list: &ListType::Atomic, atomic: false }
    }
}

/// One child of a value that is not a leaf.
pub struct Part<'v, 's> {
    pub element: String,
    pub value: &'v Value,
    pub shape: Shape<'s>,
    /// The child's own path is a member whatever is below it (list items, map keys).
    pub owned: bool,
}

/// How a value falls apart.
pub enum Form {
    Leaf,
    Map,
    List,
}

/// Whether a value is a leaf (scalars, atomic things), a map, or a list with identities.
pub fn form(value: &Value, shape: Shape<'_>, schema: &Schema) -> Form {
    if shape.atomic {
        return Form::Leaf;
    }
    match (value, shape.ty) {
        (Value::Object(_), Some(Type::Struct(id))) if schema.get(*id).atomic => Form::Leaf,
        (Value::Object(_), Some(Type::Struct(_) | Type::Map(_)) | None) => Form::Map,
        (Value::Object(_), Some(Type::Raw | Type::Json)) => Form::Map,
        (Value::Array(_), Some(Type::List(_))) if *shape.list != ListType::Atomic => Form::List,
        _ => Form::Leaf,
    }
}

/// The children of a map or keyed list; None for a leaf.
pub fn children<'v, 's>(value: &'v Value, shape: Shape<'s>, schema: &'s Schema) -> Option<Vec<Part<'v, 's>>> {
    match (form(value, shape, schema), value) {
        (Form::Map, Value::Object(map)) => Some(map.iter().map(|(key, v)| member(key, v, shape, schema)).collect()),
        (Form::List, Value::Array(items)) => {
            let element = match shape.ty {
                Some(Type::List(element)) => Shape::element(element),
                _ => Shape::unknown(),
            };
            let part = |v: &'v Value| {
                let id = identity(v, shape.list, element, schema);
                Part { element: id, value: v, shape: element, owned: true }
            };
            Some(items.iter().map(part).collect())
        }
        _ => None,
    }
}

fn member<'v, 's>(key: &str, value: &'v Value, parent: Shape<'s>, schema: &'s Schema) -> Part<'v, 's> {
    let element = format!("f:{key}");
    match parent.ty {
        Some(Type::Struct(id)) => match schema.get(*id).field(key) {
            Some(field) => Part { element, value, shape: Shape::of(field), owned: false },
            None => Part { element, value, shape: Shape::unknown(), owned: true },
        },
        Some(Type::Map(inner)) => Part { element, value, shape: Shape::element(inner), owned: true },
        _ => Part { element, value, shape: Shape::unknown(), owned: true },
    }
}

/// The path element of a list item: by its keys, with the schema's defaults for absent ones, or by its value.
pub fn identity(item: &Value, list: &ListType, element: Shape<'_>, schema: &Schema) -> String {
    let ListType::Map(keys) = list else { return format!("v:{item}") };
    let default = |key: &str| match element.ty {
        Some(Type::Struct(id)) => schema.get(*id).field(key).and_then(|f| f.default.clone()),
        _ => None,
    };
    let pair = |key: &&'static str| {
        let value = item.get(*key).cloned().or_else(|| default(key));
        value.map(|v| ((*key).to_owned(), v))
    };
    let map: Map<String, Value> = keys.iter().filter_map(pair).collect();
    format!("k:{}", Value::Object(map))
}
