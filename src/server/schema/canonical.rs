//! The form of an object that a round trip through upstream's Go structs leaves: what upstream's answers, comparisons
//! and managed fields are made of.

use super::{Field, Instead, Schema, Type, TypeId};
use crate::object::Object;
use crate::quantity::normalize;
use crate::server::patch::Typed;
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// As Go's `base64.StdEncoding`: padding demanded, spare bits ignored.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Bring a checked tree into the form a round trip through upstream's structs leaves: empty omitempty values go,
/// fields that are always written appear (`status: {}`, `resources: {}`), times, durations and numeric quantities get
/// their printed form. Not for server-side apply configurations: there absence means "not mine".
pub fn canonicalize(object: &mut Object, typed: Typed<'_>) {
    if let Value::Object(map) = object {
        structure(map, typed.ty, typed.schema);
    }
}

/// What an absent struct of this type is written as: `{}`, or more where fields are always written.
pub fn zero(schema: &Schema, id: TypeId) -> Value {
    let mut map = Map::new();
    structure(&mut map, id, schema);
    Value::Object(map)
}

/// What a null element of a list or map becomes.
pub(super) fn zero_element(schema: &Schema, ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes => "".into(),
        Type::Bool => false.into(),
        Type::Int32 | Type::Int64 | Type::Float64 | Type::IntOrString => 0.into(),
        Type::Quantity => "0".into(),
        Type::Duration => "0s".into(),
        Type::Struct(id) => zero(schema, *id),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Map(_) | Type::FieldsV1 | Type::SchemaOr(..) => Value::Object(Map::new()),
        // Go's zero time is null in JSON.
        Type::Time | Type::MicroTime | Type::Raw | Type::Json => Value::Null,
    }
}

fn structure(map: &mut Map<String, Value>, id: TypeId, schema: &Schema) {
    for field in &schema.get(id).fields {
        match map.get_mut(field.json) {
            Some(Value::Null) => drop(map.remove(field.json)),
            Some(value) => {
                canonical(value, &field.ty, schema);
                if !field.pointer && is_omitted(value, field) {
                    map.remove(field.json);
                }
            }
            None => {}
        }
        if !map.contains_key(field.json)
            && let Some(value) = always_written(field, schema)
        {
            map.insert(field.json.to_owned(), value);
        }
    }
}

/// Whether Go would not write this value of a field that is no pointer.
fn is_omitted(value: &Value, field: &Field) -> bool {
    let empty = match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    let plain = !matches!(field.ty, Type::Struct(_) | Type::IntOrString | Type::Raw | Type::Json | Type::SchemaOr(..));
    empty && (field.omitzero || field.omitempty && plain)
}

/// What Go writes for a field that is not set, if anything (null counts as nothing).
fn always_written(field: &Field, schema: &Schema) -> Option<Value> {
    if field.pointer || field.omitzero {
        return None;
    }
    match &field.ty {
        // Structs in Go: omitempty has no effect on them.
        Type::Struct(id) => Some(zero(schema, *id)),
        Type::Quantity => Some("0".into()),
        Type::IntOrString => Some(0.into()),
        Type::Duration => Some("0s".into()),
        _ if field.omitempty => None,
        Type::String => Some("".into()),
        Type::Bool => Some(false.into()),
        Type::Int32 | Type::Int64 | Type::Float64 => Some(0.into()),
        _ => None,
    }
}

fn canonical(value: &mut Value, ty: &Type, schema: &Schema) {
    match (ty, &mut *value) {
        (Type::Struct(id), Value::Object(map)) => structure(map, *id, schema),
        (Type::List(element), Value::Array(items)) => items.iter_mut().for_each(|v| canonical(v, element, schema)),
        (Type::Map(element), Value::Object(map)) => map.values_mut().for_each(|v| canonical(v, element, schema)),
        (Type::SchemaOr(id, _), Value::Object(map)) => structure(map, *id, schema),
        (Type::SchemaOr(id, Instead::Schemas), Value::Array(items)) => {
            items.iter_mut().for_each(|v| canonical(v, &Type::Struct(*id), schema));
        }
        (Type::Quantity, Value::Number(n)) => {
            let text = n.to_string();
            *value = normalize(&text).unwrap_or(text).into();
        }
        (Type::Quantity, Value::String(text)) => {
            normalize(text).into_iter().for_each(|normal| *text = normal);
        }
        (Type::Time, Value::String(text)) => {
            parse_time(text).into_iter().for_each(|time| *text = crate::time::rfc3339(time));
        }
        (Type::MicroTime, Value::String(text)) => {
            parse_time(text).into_iter().for_each(|time| *text = crate::time::rfc3339_micro(time));
        }
        (Type::Duration, Value::String(text)) => {
            parse_duration(text).into_iter().for_each(|nanos| *text = print_duration(nanos));
        }
        (Type::Bytes, Value::String(text)) => {
            unbase64(text).into_iter().for_each(|bytes| *text = base64(&bytes));
        }
        _ => {}
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Go's base64, which skips line breaks. The error is Go's text.
pub(crate) fn unbase64(text: &str) -> Result<Vec<u8>, String> {
    let broken = |e: base64::DecodeError| match e {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            format!("illegal base64 data at input byte {at}")
        }
        _ => format!("illegal base64 data at input byte {}", text.len()),
    };
    if text.contains(['\r', '\n']) {
        return BASE64.decode(text.replace(['\r', '\n'], "")).map_err(broken);
    }
    BASE64.decode(text).map_err(broken)
}

/// RFC 3339 with a capital T and a zone, as Go's parser wants it.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let shape = b"0000-00-00T00:00:00";
    let fits = |(have, want): (&u8, &u8)| if *want == b'0' { have.is_ascii_digit() } else { have == want };
    if b.len() <= shape.len() || !b.iter().zip(shape).all(fits) {
        return None;
    }
    let zone = &b[shape.len()..];
    let zone = match zone.strip_prefix(b".") {
        Some(rest) => &rest[rest.iter().take_while(|c| c.is_ascii_digit()).count()..],
        None => zone,
    };
    if zone != b"Z" && !(zone.len() == 6 && zone.iter().zip(b"+00:00").skip(1).all(fits)) {
        return None;
    }
    crate::time::parse(text)
}

/// Units of a Go duration in nanoseconds, longest names first where one begins another.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go's `time.ParseDuration`: nanoseconds. The error is Go's text.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits_only = fraction.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || whole.len() > 18 || !digits_only {
            return Err(invalid());
        }
        let found = UNITS.iter().find(|(name, _)| tail.starts_with(name));
        let Some((name, unit)) = found else {
            let why = if tail.is_empty() { "missing unit in" } else { "unknown unit in" };
            return Err(format!("time: {why} duration {text:?}"));
        };
        let shown = &fraction[..fraction.len().min(15)];
        let part = shown.parse::<i128>().unwrap_or(0) * unit / 10i128.pow(shown.len() as u32);
        total += whole.parse::<i128>().unwrap_or(0) * unit + part;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = &tail[name.len()..];
    }
    Ok((if negative { -total } else { total }) as i64)
}

/// Go's `Duration.String`: `1h0m0s`, `1.5s`, `300ms`.
pub(crate) fn print_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let decimal = |n: u64, unit: u64| {
        let (whole, rest) = (n / unit, n % unit);
        let width = unit.ilog10() as usize;
        let fraction = format!("{rest:0width$}");
        match fraction.trim_end_matches('0') {
            "" => whole.to_string(),
            fraction => format!("{whole}.{fraction}"),
        }
    };
    const SECOND: u64 = 1_000_000_000;
    match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(n, 1_000)),
        1_000_000..SECOND => format!("{sign}{}ms", decimal(n, 1_000_000)),
        _ => {
            let (hours, minutes) = (n / (3600 * SECOND), n / (60 * SECOND) % 60);
            let seconds = decimal(n % (60 * SECOND), SECOND);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}
