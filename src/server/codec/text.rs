//! JSON and YAML bodies: read into trees with duplicate fields noted (upstream's strict decoders), and written.

use crate::server::schema::Trail;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;

/// No more strict problems are reported for one body (as upstream).
pub const PROBLEMS_MAX: usize = 100;

/// A JSON document and its duplicate fields.
pub fn from_json(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let found = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = Tree { at: &Trail::Root, found: &found };
    let value = seed.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v)).map_err(|e| e.to_string())?;
    Ok((value, found.into_inner()))
}

/// A YAML document and its duplicate fields. Keys and values become what JSON can hold.
pub fn from_yaml(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let found = RefCell::new(Vec::new());
    let seed = Tree { at: &Trail::Root, found: &found };
    let value = seed.deserialize(serde_yaml::Deserializer::from_slice(body)).map_err(|e| e.to_string())?;
    Ok((value, found.into_inner()))
}

pub fn to_json(value: &Value, pretty: bool) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    if pretty {
        serde_json::to_writer_pretty(&mut out, value)?
    } else {
        serde_json::to_writer(&mut out, value)?
    }
    out.push(b'\n');
    Ok(out)
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    at: &'a Trail<'a>,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(v);
        number.map(Value::Number).ok_or_else(|| E::custom(format!("unsupported value: {v}")))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.deserialize(reader)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    /// YAML tags: the tag is dropped, the value kept.
    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        use serde::de::VariantAccess;
        let (_tag, content) = data.variant::<String>()?;
        content.newtype_variant_seed(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let at = Trail::Index(self.at, list.len());
            match items.next_element_seed(Tree { at: &at, found: self.found })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let at = Trail::Key(self.at, &key);
            let value = entries.next_value_seed(Tree { at: &at, found: self.found })?;
            if map.contains_key(&key) && self.found.borrow().len() < PROBLEMS_MAX {
                self.found.borrow_mut().push(format!("duplicate field \"{at}\""));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// An object key; YAML scalars are taken as their text, as upstream does.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<String, D::Error> {
        reader.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }

    fn visit_string<E>(self, v: String) -> Result<String, E> {
        Ok(v)
    }

    fn visit_bool<E>(self, v: bool) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_i64<E>(self, v: i64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_u64<E>(self, v: u64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_f64<E>(self, v: f64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_and_the_last_wins() {
        let (value, found) = from_json(br#"{"a":{"b":1,"b":2},"l":[{"x":1},{"x":1,"x":3}],"a":{"c":1}}"#).unwrap();
        assert_eq!(value, serde_json::json!({"a": {"c": 1}, "l": [{"x": 1}, {"x": 3}]}));
        let want = ["duplicate field \"a.b\"", "duplicate field \"l[1].x\"", "duplicate field \"a\""];
        assert_eq!(found, want);
        let (value, found) = from_yaml(b"a: 1\nb:\n- c: x\n  c: y\na: 2\n1: one\ntrue: t\nd: !x 5\n").unwrap();
        assert_eq!(value, serde_json::json!({"1": "one", "a": 2, "b": [{"c": "y"}], "d": 5, "true": "t"}));
        assert_eq!(found, ["duplicate field \"b[0].c\"", "duplicate field \"a\""]);
    }

    #[test]
    fn malformed_bodies_are_errors() {
        for body in ["", "{", "{\"a\":1} x", "{\"a\":}", "nul", &"[".repeat(100_000)] {
            assert!(from_json(body.as_bytes()).is_err(), "{:.20}", body);
        }
        for body in ["a: [", "a: b: c", "\t- x", ".inf", "a: &x [*x]"] {
            assert!(from_yaml(body.as_bytes()).is_err(), "{body}");
        }
    }
}
