//! Objects against the schema: types, unknown fields, pruning (what upstream's strict JSON decoder does), and what
//! `fieldValidation` makes of the findings.

use super::{Instead, Schema, Trail, Type, TypeId, canonical};
use crate::object::Object;
use crate::quantity::Quantity;
use crate::server::codec::{PROBLEMS_MAX, json_type};
use crate::server::patch::Typed;
use crate::status::{Result, Status};
use serde_json::{Map, Value};

pub use super::canonical::canonicalize;

/// The `fieldValidation` query parameter (KEP-2885).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// None: not one of the three words. Absent and empty mean Warn.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Check a decoded tree against its type: values of the wrong JSON type are an error (Go's text), unknown fields and
/// nulls are removed. Returns one `unknown field "spec.replicaz"` for each field removed for being unknown.
pub fn check(object: &mut Object, typed: Typed<'_>) -> std::result::Result<Vec<String>, String> {
    let mut walk = Walk { schema: typed.schema, unknown: Vec::new(), quiet: false };
    let name = typed.schema.get(typed.ty).short_name();
    walk.structure(object, typed.ty, Place { at: &Trail::Root, inside: name, go: name })?;
    Ok(walk.unknown)
}

/// The whole of a create or update body: [`check`], [`canonicalize`], and what `fieldValidation` makes of the
/// problems (`problems` of [`crate::server::codec::Decoded`] included). Returns the texts for `Warning:` headers;
/// 400 with upstream's text for type errors and, under Strict, for problems.
pub fn admit(
    object: &mut Object,
    typed: Typed<'_>,
    problems: Vec<String>,
    mode: FieldValidation,
) -> Result<Vec<String>> {
    let refuse = |object: &Object, why: String| {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let (kind, api_version) = (text("kind"), text("apiVersion"));
        let version = crate::object::split_api_version(&api_version).1;
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    let mut all = check(object, typed).map_err(|why| refuse(object, why))?;
    all.extend(problems);
    let warnings = enforce(all, mode).map_err(|why| refuse(object, why))?;
    canonical::canonicalize(object, typed);
    Ok(warnings)
}

/// Problems as `fieldValidation` treats them: warnings, or under Strict the text `strict decoding error: …`.
pub fn enforce(mut problems: Vec<String>, mode: FieldValidation) -> std::result::Result<Vec<String>, String> {
    problems.truncate(PROBLEMS_MAX);
    match mode {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !problems.is_empty() => {
            Err(format!("strict decoding error: {}", problems.join(", ")))
        }
        _ => Ok(problems),
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    unknown: Vec<String>,
    /// Inside JSONSchemaProps' alternatives upstream decodes without strictness.
    quiet: bool,
}

type Check = std::result::Result<(), String>;

/// Where a value is and what Go calls what it should be.
#[derive(Clone, Copy)]
struct Place<'a> {
    at: &'a Trail<'a>,
    /// Go's name of the innermost struct.
    inside: &'static str,
    /// Go's name of the type expected here.
    go: &'a str,
}

impl Place<'_> {
    /// Go's text: `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    fn mismatch(&self, value: &Value) -> String {
        let what = match value {
            Value::Number(n) if matches!(self.go, "int32" | "int64" | "float64") => format!("number {n}"),
            other => json_type(other).to_owned(),
        };
        let fields = self.at.fields();
        if fields.is_empty() {
            return format!("json: cannot unmarshal {what} into Go value of type {}", self.go);
        }
        format!("json: cannot unmarshal {what} into Go struct field {}.{fields} of type {}", self.inside, self.go)
    }
}

impl Walk<'_> {
    fn structure(&mut self, value: &mut Value, id: TypeId, place: Place<'_>) -> Check {
        let def = self.schema.get(id);
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        let Value::Object(map) = value else { return Err(place.mismatch(value)) };
        let mut gone: Vec<String> = Vec::new();
        for (key, value) in map.iter_mut() {
            let Some(field) = def.field(key) else {
                if !self.quiet && self.unknown.len() < PROBLEMS_MAX {
                    self.unknown.push(format!("unknown field \"{}\"", Trail::Field(place.at, key)));
                }
                gone.push(key.clone());
                continue;
            };
            if value.is_null() {
                gone.push(key.clone());
                continue;
            }
            let around = Trail::Embedded(place.at, field.embedded);
            let at = Trail::Field(&around, key);
            self.value(value, &field.ty, Place { at: &at, inside: def.short_name(), go: field.go })?;
        }
        gone.iter().for_each(|key| drop(map.remove(key)));
        Ok(())
    }

    fn list(&mut self, value: &mut Value, element: &Type, place: Place<'_>) -> Check {
        let Value::Array(items) = value else { return Err(place.mismatch(value)) };
        for (i, item) in items.iter_mut().enumerate() {
            let at = Trail::Index(place.at, i);
            let go = place.go.strip_prefix("[]").unwrap_or_else(|| go_name(self.schema, element));
            self.value(item, element, Place { at: &at, go, ..place })?;
        }
        Ok(())
    }

    fn map(&mut self, value: &mut Value, element: &Type, place: Place<'_>) -> Check {
        let Value::Object(map) = value else { return Err(place.mismatch(value)) };
        for (key, item) in map.iter_mut() {
            let at = Trail::Key(place.at, key);
            let named = place.go.strip_prefix("map[").and_then(|rest| rest.split_once(']'));
            let go = named.map_or_else(|| go_name(self.schema, element), |(_, go)| go);
            self.value(item, element, Place { at: &at, go, ..place })?;
        }
        Ok(())
    }

    /// A null here is an element of a list or map: Go makes it the zero value.
    fn value(&mut self, value: &mut Value, ty: &Type, place: Place<'_>) -> Check {
        if value.is_null() {
            *value = canonical::zero_element(self.schema, ty);
        }
        match ty {
            Type::Struct(id) => self.structure(value, *id, place),
            Type::List(element) => self.list(value, element, place),
            Type::Map(element) => self.map(value, element, place),
            Type::SchemaOr(id, instead) => self.schema_or(value, *id, *instead, place),
            Type::Raw | Type::Json | Type::FieldsV1 => Ok(()),
            scalar => check_scalar(value, scalar, place),
        }
    }

    fn schema_or(&mut self, value: &mut Value, id: TypeId, instead: Instead, place: Place<'_>) -> Check {
        let quiet = std::mem::replace(&mut self.quiet, true);
        let place = Place { go: "v1.JSONSchemaProps", ..place };
        let result = match (instead, &mut *value) {
            (Instead::Bool, Value::Bool(_)) => Ok(()),
            (Instead::Schemas, Value::Array(_)) => self.list(value, &Type::Struct(id), place),
            (Instead::Strings, Value::Array(_)) => self.list(value, &Type::String, place),
            _ => self.structure(value, id, place),
        };
        self.quiet = quiet;
        result
    }
}

/// What Go calls a type where the table does not say (elements of named list and map types).
fn go_name(schema: &Schema, ty: &Type) -> &'static str {
    match ty {
        Type::String => "string",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Float64 => "float64",
        Type::Bytes => "[]byte",
        Type::Struct(id) => schema.get(*id).short_name(),
        _ => "object",
    }
}

fn check_scalar(value: &Value, ty: &Type, place: Place<'_>) -> Check {
    let as_string = Place { go: "string", ..place };
    let ok = match ty {
        Type::String => value.is_string(),
        Type::Bool => value.is_boolean(),
        Type::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Type::Int64 => value.as_i64().is_some(),
        Type::Float64 => value.is_number(),
        Type::IntOrString => match value {
            Value::String(_) => true,
            Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => true,
            _ => return Err(Place { go: "int32", ..place }.mismatch(value)),
        },
        Type::Quantity => return check_quantity(value),
        Type::Bytes => match value.as_str() {
            Some(text) => return canonical::unbase64(text).map(drop),
            None => false,
        },
        Type::Time | Type::MicroTime => match value.as_str() {
            None if value.is_null() => true,
            Some(text) => return check_time(text, ty),
            None => return Err(as_string.mismatch(value)),
        },
        Type::Duration => match value.as_str() {
            Some(text) => return canonical::parse_duration(text).map(drop),
            None => return Err(as_string.mismatch(value)),
        },
        _ => true,
    };
    if ok { Ok(()) } else { Err(place.mismatch(value)) }
}

fn check_quantity(value: &Value) -> Check {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    text.parse::<Quantity>().map(drop).map_err(|e| e.to_string())
}

fn check_time(text: &str, ty: &Type) -> Check {
    if canonical::parse_time(text).is_some() {
        return Ok(());
    }
    let layout = match ty {
        Type::MicroTime => "2006-01-02T15:04:05.000000Z07:00",
        _ => "2006-01-02T15:04:05Z07:00",
    };
    Err(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
