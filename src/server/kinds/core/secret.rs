//! Secret (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;
use base64::Engine;

pub static KIND: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    storage: "secrets",
    selectable: &["type"],
    columns: &[Column::NAME, text("Type"), integer("Data"), Column::AGE],
    strategy: &Secret,
    ..Kind::BASE
};

struct Secret;

impl Strategy for Secret {
    fn default(&self, secret: &mut Object) {
        default_zero(secret, "type", "Opaque");
        encode_string_data(secret);
    }

    fn row(&self, secret: &Object, now: i64) -> Vec<Value> {
        vec![secret.name().into(), string(secret, &["type"]), count(secret, &["data"]).into(), age(secret, now)]
    }
}

/// `stringData` is a write-only convenience: its values win over `data` and are never shown.
fn encode_string_data(secret: &mut Object) {
    let Some(Value::Object(texts)) = secret.remove_at(&["stringData"]) else { return };
    for (key, text) in texts {
        let bytes = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        secret.set_at(&["data", &key], bytes.into());
    }
}
