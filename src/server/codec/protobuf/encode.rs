//! Trees into protobuf messages. Absent fields are not written: Go reads their zero values.

use super::{embedded, is_in, wire};
use crate::server::schema::{Instead, Schema, Type, TypeId, parse_duration, parse_time, unbase64};
use serde_json::{Map, Value};

/// Write the message of a struct, or with `outer` that of a struct embedded in it.
pub fn message(schema: &Schema, id: TypeId, outer: &[u32], map: &Map<String, Value>, out: &mut Vec<u8>) {
    let def = schema.get(id);
    for field in def.fields.iter().filter(|f| f.pb != 0 && is_in(f, outer)) {
        if let Some(value) = map.get(field.json).filter(|v| !v.is_null()) {
            let write = if field.wrapped { single } else { write };
            write(schema, &field.ty, field.pb, value, out);
        }
    }
    for number in embedded(def, outer) {
        let path = [outer, &[number]].concat();
        wire::nested(out, number, |inner| message(schema, id, &path, map, inner));
    }
}

fn write(schema: &Schema, ty: &Type, number: u32, value: &Value, out: &mut Vec<u8>) {
    match (ty, value) {
        (Type::List(element), Value::Array(items)) => {
            items.iter().for_each(|item| single(schema, element, number, item, out));
        }
        (Type::Map(element), Value::Object(map)) => {
            for (key, item) in map {
                wire::nested(out, number, |entry| {
                    wire::bytes(entry, 1, key.as_bytes());
                    single(schema, element, 2, item, entry);
                });
            }
        }
        _ => single(schema, ty, number, value, out),
    }
}

/// One value. What does not fit its type is left out: trees are checked when they come in.
fn single(schema: &Schema, ty: &Type, number: u32, value: &Value, out: &mut Vec<u8>) {
    let int = || value.as_i64().unwrap_or(0) as u64;
    let text = value.as_str().unwrap_or("");
    match ty {
        Type::String => wire::bytes(out, number, text.as_bytes()),
        Type::Bool => wire::varint(out, number, value.as_bool().unwrap_or(false).into()),
        Type::Int32 | Type::Int64 => wire::varint(out, number, int()),
        Type::Float64 => wire::fixed64(out, number, value.as_f64().unwrap_or(0.0).to_bits()),
        Type::Bytes => wire::bytes(out, number, &unbase64(text).unwrap_or_default()),
        Type::Quantity => wire::nested(out, number, |m| match value {
            Value::Number(n) => wire::bytes(m, 1, n.to_string().as_bytes()),
            _ => wire::bytes(m, 1, text.as_bytes()),
        }),
        Type::IntOrString => wire::nested(out, number, |m| {
            wire::varint(m, 1, value.is_string().into());
            wire::varint(m, 2, int());
            wire::bytes(m, 3, text.as_bytes());
        }),
        Type::Time | Type::MicroTime => wire::nested(out, number, |m| {
            if let Some(time) = parse_time(text) {
                wire::varint(m, 1, time.as_second() as u64);
                let micro = time.subsec_nanosecond() / 1000 * 1000;
                wire::varint(m, 2, if *ty == Type::MicroTime { micro as u64 } else { 0 });
            }
        }),
        Type::Duration => {
            wire::nested(out, number, |m| wire::varint(m, 1, parse_duration(text).unwrap_or(0) as u64));
        }
        Type::Raw | Type::Json | Type::FieldsV1 => {
            let json = serde_json::to_vec(value).unwrap_or_default();
            wire::nested(out, number, |m| wire::bytes(m, 1, &json));
        }
        Type::Struct(id) => wire::nested(out, number, |m| {
            if let Value::Object(map) = value {
                message(schema, *id, &[], map, m);
            }
        }),
        Type::SchemaOr(id, instead) => {
            wire::nested(out, number, |m| schema_or(schema, *id, *instead, value, m));
        }
        // A list inside a map, or one with a type of its own, is wrapped in a message with the one field `items`.
        Type::List(_) => wire::nested(out, number, |m| write(schema, ty, 1, value, m)),
        Type::Map(_) => {}
    }
}

fn schema_or(schema: &Schema, id: TypeId, instead: Instead, value: &Value, out: &mut Vec<u8>) {
    let item = if instead == Instead::Strings { Type::String } else { Type::Struct(id) };
    match (instead, value) {
        (Instead::Bool, Value::Bool(allows)) => wire::varint(out, 1, (*allows).into()),
        (Instead::Bool, _) => {
            // Upstream's decoder sets `allows` beside a schema.
            wire::varint(out, 1, 1);
            single(schema, &Type::Struct(id), 2, value, out);
        }
        (_, Value::Array(items)) => items.iter().for_each(|v| single(schema, &item, 2, v, out)),
        _ => single(schema, &Type::Struct(id), 1, value, out),
    }
}
