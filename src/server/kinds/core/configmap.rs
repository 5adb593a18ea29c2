//! ConfigMap (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::{bool_at, same};
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    storage: "configmaps",
    columns: &[Column::NAME, text("Data"), Column::AGE],
    strategy: &ConfigMap,
    ..Kind::BASE
};

struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, map: &Object, errors: &mut Errors) {
        check(map, errors, |map| {
            let (data, binary) = (map.get("data"), map.get("binaryData"));
            let mut bytes = 0;
            for (key, value) in data.entries() {
                for why in names::config_map_key(key) {
                    value.invalid_value(key, why);
                }
                if binary.get(key).is_set() {
                    value.invalid_value(key, "duplicate of key present in binaryData");
                }
                bytes += value.len();
            }
            for (key, value) in binary.entries() {
                for why in names::config_map_key(key) {
                    value.invalid_value(key, why);
                }
                bytes += decoded_len(value.str());
            }
            if bytes > MAX_DATA_BYTES {
                map.named(crate::field::Path::new("")).too_long(MAX_DATA_BYTES);
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        if bool_at(old, &["immutable"]) {
            check_change(new, old, errors, |new, old| {
                if !new.get("immutable").is_true() {
                    new.get("immutable").forbidden(IMMUTABLE);
                }
                for field in ["data", "binaryData"].map(|f| (new.get(f), old.get(f))) {
                    if !same(Some(field.0.value()), Some(field.1.value())) {
                        field.0.forbidden(IMMUTABLE);
                    }
                }
            });
        }
    }

    fn row(&self, map: &Object, now: i64) -> Vec<Value> {
        let keys = count(map, &["data"]) + count(map, &["binaryData"]);
        vec![map.name().into(), keys.into(), age(map, now)]
    }
}

/// All values of a ConfigMap or Secret together.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

pub const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// Bytes that a base64 text stands for.
pub fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}
