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

/// A list of a kind as an object.
pub fn list_object(kind: &Kind, meta: Value, mut items: Vec<Object>) -> Object {
    // Items of typed lists do not repeat the type.
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("apiVersion");
        item.remove("kind");
    }
    json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": meta, "items": items})
}

/// One object as the client wants to see it. `columns`: a Table repeats its column definitions (a watch sends them
/// once). `now` is Unix seconds.
pub fn view_one(kind: &Kind, object: Object, view: View, include: Include, columns: bool, now: i64) -> Object {
    match view {
        View::Object => object,
        View::Table(version) => {
            let meta = json!({"resourceVersion": object.resource_version()});
            table(kind, meta, vec![object], version, include, columns, now)
        }
        View::Metadata(version) | View::MetadataList(version) => partial(object, version),
    }
}

/// A list as the client wants to see it.
pub fn view_list(kind: &Kind, meta: Value, items: Vec<Object>, view: View, include: Include, now: i64) -> Object {
    match view {
        View::Object => list_object(kind, meta, items),
        View::Table(version) => table(kind, meta, items, version, include, true, now),
        View::Metadata(version) | View::MetadataList(version) => {
            let items: Vec<Object> = items.into_iter().map(|item| partial(item, version)).collect();
            let api_version = format!("meta.k8s.io/{version}");
            json!({"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": meta, "items": items})
        }
    }
}

fn partial(mut object: Object, version: &str) -> Object {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

fn table(
    kind: &Kind,
    meta: Value,
    items: Vec<Object>,
    version: &str,
    include: Include,
    columns: bool,
    now: i64,
) -> Object {
    let rows: Vec<Value> = items
        .into_iter()
        .map(|item| {
            let cells = kind.strategy.row(&item, now);
            match include {
                Include::None => json!({"cells": cells}),
                Include::Metadata => json!({"cells": cells, "object": partial(item, version)}),
                Include::Object => json!({"cells": cells, "object": item}),
            }
        })
        .collect();
    let definitions: Vec<Value> = if columns { kind.columns.iter().map(definition).collect() } else { Vec::new() };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
        "columnDefinitions": definitions, "rows": rows,
    })
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
