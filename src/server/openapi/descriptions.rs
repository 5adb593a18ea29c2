//! Field descriptions, from the file that build.rs makes out of the `k8s-openapi` dependency.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zst"));

/// Descriptions of some types and their fields.
#[derive(Default)]
pub struct Descriptions {
    types: HashMap<String, String>,
    fields: HashMap<(String, String), String>,
}

impl Descriptions {
    /// Read those of the named types. The file is unpacked as a stream: it is never in memory as a whole.
    pub fn of(wanted: &HashSet<&str>) -> Self {
        let mut found = Descriptions::default();
        let Ok(reader) = zstd::Decoder::new(COMPRESSED) else { return found };
        let mut current = None;
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let mut columns = line.splitn(3, '\t');
            let (Some(letter), Some(name), Some(text)) = (columns.next(), columns.next(), columns.next()) else {
                continue;
            };
            if letter == "T" {
                current = wanted.get(name).copied();
            }
            let Some(type_name) = current else { continue };
            let text: String = serde_json::from_str(text).unwrap_or_default();
            if letter == "T" {
                found.types.insert(type_name.to_owned(), text);
            } else {
                found.fields.insert((type_name.to_owned(), name.to_owned()), text);
            }
        }
        found
    }

    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub fn of_field(&self, type_name: &str, field: &str) -> Option<&str> {
        let key = (type_name.to_owned(), field.to_owned());
        self.fields.get(&key).map(String::as_str).filter(|text| !text.is_empty())
    }
}
