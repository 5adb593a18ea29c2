//! Answers read as Kubernetes' own clients read them; one object that cannot be read holds nobody else up.
//!
//! Go's decoder takes `null` for "not there" and what is not there for the zero value. A condition may so be served
//! with `lastTransitionTime: null` or without one, which the structs of `k8s-openapi` refuse.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// What Go makes of a condition's time that is not there.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// What the structs want a condition to have.
const CONDITION: [(&str, &str); 3] = [("lastTransitionTime", ZERO_TIME), ("reason", ""), ("message", "")];

/// An object, or what could be read of it.
pub enum Lenient<K> {
    Object(K),
    Unreadable { meta: Box<ObjectMeta>, error: String },
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
pub struct Page<K> {
    #[serde(default)]
    pub metadata: ListMeta,
    pub items: Option<Vec<Lenient<K>>>,
}

/// One line of a watch.
#[derive(Deserialize)]
pub struct Line<'a> {
    #[serde(rename = "type")]
    pub what: &'a str,
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// What every object has.
#[derive(Deserialize)]
pub struct Shell {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(&Box::<RawValue>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Read an object; an error where it is none at all.
pub fn read<K: DeserializeOwned>(raw: &RawValue) -> serde_json::Result<Lenient<K>> {
    let failed = match serde_json::from_str(raw.get()) {
        Ok(object) => return Ok(Lenient::Object(object)),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_str(raw.get())?;
    mend(&mut value);
    if let Ok(object) = K::deserialize(&value) {
        return Ok(Lenient::Object(object));
    }
    let Shell { metadata } = Shell::deserialize(&value)?;
    Ok(Lenient::Unreadable { meta: Box::new(metadata), error: failed.to_string() })
}

/// Nothing for `null`, and what conditions lack.
fn mend(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(mend);
            for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(condition) = condition.as_object_mut() else { continue };
                for (name, zero) in CONDITION {
                    condition.entry(name).or_insert_with(|| zero.into());
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mend),
        _ => {}
    }
}
