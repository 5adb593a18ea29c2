//! Secret (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::core::configmap::{IMMUTABLE, MAX_DATA_BYTES, decoded_len};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, secret: &Object, errors: &mut Errors) {
        check(secret, errors, |secret| {
            let data = secret.get("data");
            for (key, value) in data.entries() {
                for why in names::config_map_key(key) {
                    value.invalid_value(key, why);
                }
            }
            if data.entries().map(|(_, value)| decoded_len(value.str())).sum::<usize>() > MAX_DATA_BYTES {
                data.too_long(MAX_DATA_BYTES);
            }
            required_data(secret, &data);
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, former| {
            new.get("type").immutable(&former.get("type"));
            if bool_at(old, &["immutable"]) {
                if !new.get("immutable").is_true() {
                    new.get("immutable").forbidden(IMMUTABLE);
                }
                if !same(Some(new.get("data").value()), Some(former.get("data").value())) {
                    new.get("data").forbidden(IMMUTABLE);
                }
            }
        });
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

/// What a secret of this type must hold.
fn required_data(secret: &View<'_>, data: &View<'_>) {
    let entry = |key: &str| data.get(key).named(data.path().key(key));
    let require = |keys: &[&str]| keys.iter().map(|k| entry(k)).filter(|e| !e.is_set()).for_each(|e| e.required(""));
    match secret.get("type").str() {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotations = secret.at(&["metadata", "annotations"]);
            annotations.get(NAME).named(annotations.path().key(NAME)).require();
        }
        "kubernetes.io/dockercfg" => json_data(&entry(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => json_data(&entry(".dockerconfigjson")),
        "kubernetes.io/basic-auth" if !entry("username").is_set() && !entry("password").is_set() => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" => _ = entry("ssh-privatekey").require(),
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn json_data(entry: &View<'_>) {
    if !entry.is_set() {
        return entry.required("");
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(entry.str()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        entry.invalid_value("<secret contents redacted>", error);
    }
}
