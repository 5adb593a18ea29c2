//! Stored values as bytes: written once in a fixed form, read and completed without parsing (DESIGN D2).
//!
//! A stored value is JSON without spaces whose first keys are `apiVersion`, `kind`, `metadata`, and whose metadata has
//! no `resourceVersion`: that is the key's revision, spliced in on the way out. Reads here accept any JSON without
//! spaces (values written by another server may have another order).

use crate::object::{Object, ObjectExt};
use crate::status::{Result, Status};
use crate::store::Revision;
use bytes::Bytes;
use serde_json::Value;
use std::io::Write;

/// Keys that come first in a stored value.
const FIRST: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The stored form of an object. `metadata.resourceVersion` is left out.
pub fn store_form(object: &mut Object) -> Result<Bytes> {
    object.remove_at(&["metadata", "resourceVersion"]);
    let Value::Object(map) = &*object else { return Err(Status::internal("an object is not a JSON object")) };
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let first = FIRST.iter().filter_map(|key| map.get_key_value(*key));
    let rest = map.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()));
    for (key, value) in first.chain(rest) {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, key).map_err(Status::internal)?;
        out.push(b':');
        serde_json::to_writer(&mut out, value).map_err(Status::internal)?;
    }
    out.push(b'}');
    Ok(out.into())
}

/// The object of a stored value, with its revision as `metadata.resourceVersion`.
pub fn parse(value: &[u8], revision: Revision) -> Result<Object> {
    let mut object: Object =
        serde_json::from_slice(value).map_err(|e| Status::internal(format!("stored value: {e}")))?;
    object.metadata_mut().insert("resourceVersion".to_owned(), revision.to_string().into());
    Ok(object)
}

/// Append a stored value with its resourceVersion.
pub fn splice(out: &mut Vec<u8>, value: &[u8], revision: Revision) {
    splice_from(out, value, 0, revision);
}

/// Append a stored value with its resourceVersion and without `apiVersion` and `kind`: an item of a typed list.
pub fn splice_item(out: &mut Vec<u8>, value: &[u8], revision: Revision) {
    // Only where the value begins as `store_form` writes it; else nothing is lost by repeating the type.
    let from = [&b"\"apiVersion\":\""[..], b"\"kind\":\""].iter().try_fold(1, |at, prefix| {
        let rest = value.get(at..)?.strip_prefix(*prefix)?;
        let end = rest.iter().position(|b| *b == b'"')?;
        (rest.get(end + 1) == Some(&b',')).then_some(at + prefix.len() + end + 2)
    });
    match from {
        Some(from) => {
            out.push(b'{');
            splice_from(out, value, from, revision);
        }
        None => splice(out, value, revision),
    }
}

/// Append `value[from..]` with the revision inserted at the start of its metadata.
fn splice_from(out: &mut Vec<u8>, value: &[u8], from: usize, revision: Revision) {
    let Some(metadata) = value_start(value, "metadata").filter(|at| value.get(*at) == Some(&b'{')) else {
        out.extend_from_slice(&value[from..]);
        return;
    };
    out.extend_from_slice(&value[from..=metadata]);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "\"resourceVersion\":\"{revision}\"");
    if value.get(metadata + 1) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&value[metadata + 1..]);
}

/// Bytes to reserve for a spliced value.
pub fn spliced_len(value: &[u8]) -> usize {
    value.len() + 48
}

/// Where the value at a path lies in JSON without spaces; None where there is none.
pub fn find(json: &[u8], path: &[&str]) -> Option<std::ops::Range<usize>> {
    let (key, rest) = path.split_first()?;
    let start = value_start(json, key)?;
    if rest.is_empty() {
        return Some(start..value_end(json, start)?);
    }
    find(&json[start..], rest).map(|inner| start + inner.start..start + inner.end)
}

/// Where the value of a key of the object at the start of `json` begins.
fn value_start(json: &[u8], key: &str) -> Option<usize> {
    let mut at = 0;
    if json.first() != Some(&b'{') {
        return None;
    }
    loop {
        at += 1;
        if json.get(at) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(json, at)?;
        if json.get(key_end) != Some(&b':') {
            return None;
        }
        if &json[at + 1..key_end - 1] == key.as_bytes() {
            return Some(key_end + 1);
        }
        at = value_end(json, key_end + 1)?;
        if json.get(at) != Some(&b',') {
            return None;
        }
    }
}

/// The string at a path, if it is one.
pub fn find_str(json: &[u8], path: &[&str]) -> Option<String> {
    let range = find(json, path)?;
    serde_json::from_slice(&json[range]).ok()
}

/// The string at a key of an object whose strings hold no escapes (labels).
pub fn plain_str<'a>(json: &'a [u8], key: &str) -> Option<&'a str> {
    let range = find(json, &[key])?;
    std::str::from_utf8(json[range].strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()
}

/// The position behind the string that starts at `at`.
fn string_end(json: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    loop {
        match *json.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// The position behind the value that starts at `at`.
fn value_end(json: &[u8], at: usize) -> Option<usize> {
    match *json.get(at)? {
        b'"' => string_end(json, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut i = at;
            loop {
                match *json.get(i)? {
                    b'"' => {
                        i = string_end(json, i)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
        }
        _ => json[at..].iter().position(|b| matches!(b, b',' | b'}' | b']')).map(|n| at + n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stored_form_and_back() {
        let mut object = json!({
            "data": {"metadata": "{\"metadata\":{}}"}, "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"a": "b-c", "d": ""}},
        });
        let stored = store_form(&mut object).unwrap();
        let text = std::str::from_utf8(&stored).unwrap();
        assert!(text.starts_with(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#), "{text}");
        assert!(!text.contains("resourceVersion"));
        let mut out = Vec::new();
        splice(&mut out, &stored, Revision(12));
        let mut expected = object.clone();
        expected.set_at(&["metadata", "resourceVersion"], "12".into());
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
        assert_eq!(parse(&stored, Revision(12)).unwrap(), expected);
        let mut item = Vec::new();
        splice_item(&mut item, &stored, Revision(12));
        expected.remove_at(&["kind"]);
        expected.remove_at(&["apiVersion"]);
        assert_eq!(serde_json::from_slice::<Value>(&item).unwrap(), expected);
        let labels = &stored[find(&stored, &["metadata", "labels"]).unwrap()];
        assert_eq!(
            (plain_str(labels, "a"), plain_str(labels, "d"), plain_str(labels, "e")),
            (Some("b-c"), Some(""), None)
        );
    }

    #[test]
    fn paths_in_bytes() {
        let json = br#"{"a":{"b":[1,{"x":"}"}],"c":"\\\""},"metadata":{},"n":-1.5e3,"t":true,"z":null}"#;
        let cases: [(&[&str], Option<&str>); 8] = [
            (&["a", "b"], Some(r#"[1,{"x":"}"}]"#)),
            (&["a", "c"], Some(r#""\\\"""#)),
            (&["metadata"], Some("{}")),
            (&["n"], Some("-1.5e3")),
            (&["t"], Some("true")),
            (&["z"], Some("null")),
            (&["a", "d"], None),
            (&["n", "d"], None),
        ];
        for (path, expected) in cases {
            let found = find(json, path).map(|r| std::str::from_utf8(&json[r]).unwrap());
            assert_eq!(found, expected, "{path:?}");
        }
        for broken in [&b""[..], b"{", b"[]", b"{\"a", b"{\"a\"", b"{\"a\":", b"{\"a\":{", b"{\"a\":\"\\"] {
            assert_eq!(find(broken, &["a"]), None);
        }
        let mut out = Vec::new();
        splice(&mut out, json, Revision(3));
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap()["metadata"], json!({"resourceVersion": "3"}));
    }
}
