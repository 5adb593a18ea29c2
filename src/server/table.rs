//! `meta.k8s.io/v1` Tables: the columns kubectl shows.

use crate::object::{Object, ObjectExt};
use crate::server::codec::View;
use crate::server::kinds::Kind;
use crate::status::{Result, Status};
use serde_json::{Value, json};

/// What a row carries besides its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "Metadata" => Ok(Include::Metadata),
            "None" => Ok(Include::None),
            "Object" => Ok(Include::Object),
            other => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// One object as the client wants to see it. `columns`: a Table repeats its column definitions (a watch sends them
/// once). `now` is Unix seconds.
pub fn view_one(kind: &Kind, object: Object, view: View, include: Include, columns: bool, now: i64) -> Object {
    let View::Table(version) = view else { return item_of(object, view) };
    let meta = json!({"resourceVersion": object.resource_version()});
    let definitions: Vec<Value> = if columns { kind.columns.iter().map(definition).collect() } else { Vec::new() };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
        "columnDefinitions": definitions, "rows": [item(kind, object, view, include, now)],
    })
}

/// One object as it appears in a list: a Table's row, metadata alone, or the object without its type (typed lists do
/// not repeat it).
pub fn item(kind: &Kind, object: Object, view: View, include: Include, now: i64) -> Object {
    let View::Table(version) = view else {
        let mut item = item_of(object, view);
        if let (View::Object, Value::Object(map)) = (view, &mut item) {
            map.remove("apiVersion");
            map.remove("kind");
        }
        return item;
    };
    let cells = kind.strategy.row(&object, now);
    match include {
        Include::None => json!({"cells": cells}),
        Include::Metadata => json!({"cells": cells, "object": item_of(object, View::Metadata(version))}),
        Include::Object => json!({"cells": cells, "object": object}),
    }
}

fn item_of(mut object: Object, view: View) -> Object {
    let (View::Metadata(version) | View::MetadataList(version)) = view else { return object };
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

/// Kind, apiVersion, and the name of the field that holds the items of a list.
fn list_type(kind: &Kind, view: View) -> (String, String, &'static str) {
    match view {
        View::Object => (kind.list_kind(), kind.api_version(), "items"),
        View::Table(version) => ("Table".to_owned(), format!("meta.k8s.io/{version}"), "rows"),
        View::Metadata(version) | View::MetadataList(version) => {
            ("PartialObjectMetadataList".to_owned(), format!("meta.k8s.io/{version}"), "items")
        }
    }
}

/// A list of [`item`]s as a tree.
pub fn list(kind: &Kind, meta: Value, items: Vec<Object>, view: View) -> Object {
    let (list_kind, api_version, field) = list_type(kind, view);
    let mut list = json!({"kind": list_kind, "apiVersion": api_version, "metadata": meta});
    if let View::Table(_) = view {
        list["columnDefinitions"] = kind.columns.iter().map(definition).collect();
    }
    list[field] = items.into();
    list
}

/// The beginning of a list as JSON, up to and with the bracket of the items.
pub fn list_head(kind: &Kind, view: View) -> String {
    let (list_kind, api_version, field) = list_type(kind, view);
    let columns = match view {
        View::Table(_) => format!("\"columnDefinitions\":{},", Value::from_iter(kind.columns.iter().map(definition))),
        _ => String::new(),
    };
    format!("{{\"kind\":\"{list_kind}\",\"apiVersion\":\"{api_version}\",{columns}\"{field}\":[")
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format, "description": column.description,
        "priority": column.priority,
    })
}

/// One column definition.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: string, integer, number, boolean, date.
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u32,
}

impl Column {
    pub const NAME: Column = Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace.",
        priority: 0,
    };
    pub const AGE: Column = Column::new("Age", "string", 0);
    pub const CREATED_AT: Column = Column::new("Created At", "date", 0);

    pub const fn new(name: &'static str, kind: &'static str, priority: u32) -> Column {
        Column { name, kind, format: "", description: "", priority }
    }
}

/// Name and creation time: the row of kinds without columns of their own.
pub fn default_row(obj: &Object, _now: i64) -> Vec<Value> {
    vec![Value::from(obj.name()), Value::from(obj.str_at(&["metadata", "creationTimestamp"]))]
}
