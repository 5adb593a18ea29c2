//! Protobuf messages into trees.

use super::wire::{self, Value as Wire};
use super::{DEPTH_MAX, MAGIC, embedded, is_in};
use crate::server::schema::{Instead, Schema, Type, TypeId, base64};
use jiff::Timestamp;
use serde_json::{Map, Value};

type Decoded<T> = Result<T, String>;

/// Read the message of a struct (or, with `outer`, of a struct embedded in it) into `map`. Unknown fields are skipped.
pub fn message(
    schema: &Schema,
    id: TypeId,
    outer: &[u32],
    input: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Decoded<()> {
    if depth > DEPTH_MAX {
        return Err("proto: message nested too deeply".to_owned());
    }
    let def = schema.get(id);
    let inner = embedded(def, outer);
    for item in wire::fields(input) {
        let (number, value) = item?;
        if let Some(field) = def.fields.iter().find(|f| f.pb == number && is_in(f, outer)) {
            let into = map.entry(field.json).or_insert(Value::Null);
            let done = if field.wrapped {
                single(schema, &field.ty, value, depth).map(|list| *into = list)
            } else {
                read(schema, &field.ty, value, into, depth)
            };
            done.map_err(|why| format!("{}.{}: {why}", def.short_name(), field.json))?;
        } else if inner.contains(&number) {
            let path = [outer, &[number]].concat();
            message(schema, id, &path, bytes(value)?, map, depth + 1)?;
        }
    }
    Ok(())
}

fn bytes(value: Wire<'_>) -> Decoded<&[u8]> {
    match value {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(format!("proto: wrong wireType for a message: {other:?}")),
    }
}

fn number(value: Wire<'_>) -> Decoded<u64> {
    match value {
        Wire::Varint(n) => Ok(n),
        other => Err(format!("proto: wrong wireType for an integer: {other:?}")),
    }
}

/// One occurrence of a field into its place: repeated fields grow, messages merge, the rest is replaced.
fn read(schema: &Schema, ty: &Type, value: Wire<'_>, into: &mut Value, depth: usize) -> Decoded<()> {
    match ty {
        Type::Struct(id) => {
            let map = as_map(into);
            message(schema, *id, &[], bytes(value)?, map, depth + 1)?;
        }
        Type::List(element) => {
            if !into.is_array() {
                *into = Value::Array(Vec::new());
            }
            let Value::Array(items) = into else { return Ok(()) };
            if matches!(**element, Type::Bool | Type::Int32 | Type::Int64) {
                for n in wire::varints(value)? {
                    items.push(single(schema, element, Wire::Varint(n), depth)?);
                }
            } else {
                items.push(single(schema, element, value, depth)?);
            }
        }
        Type::Map(element) => {
            let (key, item) = entry(schema, element, bytes(value)?, depth)?;
            as_map(into).insert(key, item);
        }
        _ => *into = single(schema, ty, value, depth)?,
    }
    Ok(())
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

fn entry(schema: &Schema, element: &Type, input: &[u8], depth: usize) -> Decoded<(String, Value)> {
    let (mut key, mut item) = (String::new(), None);
    for field in wire::fields(input) {
        match field? {
            (1, Wire::Bytes(text)) => key = wire::text(text),
            (2, value) => item = Some(single(schema, element, value, depth)?),
            _ => {}
        }
    }
    // An absent value is the zero one: an empty message or string.
    let item = match item {
        Some(item) => item,
        None => single(schema, element, Wire::Bytes(&[]), depth)?,
    };
    Ok((key, item))
}

fn single(schema: &Schema, ty: &Type, value: Wire<'_>, depth: usize) -> Decoded<Value> {
    Ok(match ty {
        Type::String => wire::text(bytes(value)?).into(),
        Type::Bool => (number(value)? != 0).into(),
        Type::Int32 => (number(value)? as i32).into(),
        Type::Int64 => (number(value)? as i64).into(),
        Type::Float64 => match value {
            Wire::Fixed64(bits) => f64::from_bits(bits).into(),
            other => return Err(format!("proto: wrong wireType for a double: {other:?}")),
        },
        Type::Bytes => base64(bytes(value)?).into(),
        Type::Quantity => wire::text(first_bytes(bytes(value)?)?).into(),
        Type::IntOrString => int_or_string(bytes(value)?)?,
        Type::Time | Type::MicroTime => time(bytes(value)?, ty)?,
        Type::Duration => crate::server::schema::print_duration(first_number(bytes(value)?)? as i64).into(),
        Type::Raw | Type::Json | Type::FieldsV1 => raw(first_bytes(bytes(value)?)?)?,
        Type::SchemaOr(id, instead) => schema_or(schema, *id, *instead, bytes(value)?, depth)?,
        Type::Struct(id) => {
            let mut map = Map::new();
            message(schema, *id, &[], bytes(value)?, &mut map, depth + 1)?;
            Value::Object(map)
        }
        // A list inside a map, or one with a type of its own, is wrapped in a message with the one field `items`.
        Type::List(element) => {
            let items = wire::fields(bytes(value)?).map(|f| single(schema, element, f?.1, depth + 1));
            Value::Array(items.collect::<Decoded<_>>()?)
        }
        Type::Map(_) => return Err("proto: a map inside a list".to_owned()),
    })
}

/// Field 1 of a one-field message.
fn first_bytes(input: &[u8]) -> Decoded<&[u8]> {
    for field in wire::fields(input) {
        if let (1, Wire::Bytes(bytes)) = field? {
            return Ok(bytes);
        }
    }
    Ok(&[])
}

fn first_number(input: &[u8]) -> Decoded<u64> {
    for field in wire::fields(input) {
        if let (1, Wire::Varint(n)) = field? {
            return Ok(n);
        }
    }
    Ok(0)
}

fn int_or_string(input: &[u8]) -> Decoded<Value> {
    let (mut is_text, mut int, mut text) = (false, 0i32, String::new());
    for field in wire::fields(input) {
        match field? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(n)) => int = n as i32,
            (3, Wire::Bytes(bytes)) => text = wire::text(bytes),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { int.into() })
}

/// Seconds and nanoseconds; an empty message is Go's zero time, null in JSON.
fn time(input: &[u8], ty: &Type) -> Decoded<Value> {
    if input.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for field in wire::fields(input) {
        match field? {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    let nanos = if *ty == Type::MicroTime { nanos } else { 0 };
    let time = Timestamp::new(seconds, nanos).map_err(|e| e.to_string())?;
    let print = if *ty == Type::MicroTime { crate::time::rfc3339_micro } else { crate::time::rfc3339 };
    Ok(print(time).into())
}

/// JSON in bytes, or another enveloped object.
fn raw(input: &[u8]) -> Decoded<Value> {
    if input.is_empty() {
        return Ok(Value::Null);
    }
    if input.starts_with(MAGIC) {
        return super::decode(input, ("", "", ""));
    }
    serde_json::from_slice(input).map_err(|e| e.to_string())
}

fn schema_or(schema: &Schema, id: TypeId, instead: Instead, input: &[u8], depth: usize) -> Decoded<Value> {
    let schema_number = if instead == Instead::Bool { 2 } else { 1 };
    let (mut found, mut items, mut allows) = (None, Vec::new(), false);
    for field in wire::fields(input) {
        match (field?, instead) {
            ((n, value), _) if n == schema_number => found = Some(single(schema, &Type::Struct(id), value, depth)?),
            ((1, Wire::Varint(n)), Instead::Bool) => allows = n != 0,
            ((2, value), Instead::Schemas) => items.push(single(schema, &Type::Struct(id), value, depth)?),
            ((2, value), Instead::Strings) => items.push(single(schema, &Type::String, value, depth)?),
            _ => {}
        }
    }
    Ok(match (found, instead) {
        (Some(found), _) if items.is_empty() => found,
        (_, Instead::Bool) => allows.into(),
        _ => Value::Array(items),
    })
}
