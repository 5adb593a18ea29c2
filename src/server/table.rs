//! `meta.k8s.io/v1` Tables: the columns kubectl shows.

use crate::object::{Object, ObjectExt};
use serde_json::Value;

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
