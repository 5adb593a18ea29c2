//! The issuer's discovery documents (OpenID Connect Discovery 1.0 §3): others verify our tokens with them.

use crate::pki::PublicKey;
use serde_json::{Value, json};

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const KEYS_PATH: &str = "/openid/v1/jwks";
pub const CONFIGURATION_TYPE: &str = "application/json";
pub const KEYS_TYPE: &str = "application/jwk-set+json";
/// Both may be cached for an hour.
pub const CACHE_CONTROL: &str = "public, max-age=3600";

/// `jwks_base` is where clients reach this server (`https://192.0.2.1:6443`).
pub fn configuration(issuer: &str, jwks_base: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{jwks_base}{KEYS_PATH}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

pub fn keys(keys: &[PublicKey]) -> Value {
    json!({"keys": keys.iter().map(PublicKey::to_jwk).collect::<Vec<_>>()})
}
