//! The service-account key: ES256 signatures (RFC 7518 §3.4), and its public half as a JSON Web Key (RFC 7517).

use super::{file, read_if_there};
use crate::durable;
use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use std::path::Path;

/// Signs tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: PublicKey,
}

/// Verifies tokens.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// Uncompressed point: 0x04, x, y.
    point: Vec<u8>,
    /// `kid`: base64url of the SHA-256 of the key's DER, as upstream's.
    pub id: String,
}

impl SigningKey {
    /// The key in `<dir>/<name>.key` (PKCS#8 PEM), made on first use.
    pub(super) fn load_or_create(dir: &Path, name: &str) -> Result<Self> {
        let path = file(dir, name, "key");
        let pem = match read_if_there(&path)? {
            Some(pem) => pem,
            None => {
                let pem = rcgen::KeyPair::generate().context("generating the service-account key")?.serialize_pem();
                durable::write(&path, pem.as_bytes(), durable::SECRET)
                    .with_context(|| format!("writing {}", path.display()))?;
                pem
            }
        };
        Self::from_pem(&pem).with_context(|| format!("loading {}", path.display()))
    }

    fn from_pem(pem: &str) -> Result<Self> {
        let key = rcgen::KeyPair::from_pem(pem).context("parsing the key")?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random)
            .map_err(|e| anyhow!("not an ECDSA P-256 key: {e}"))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
        let public =
            PublicKey { point: key.public_key_raw().to_vec(), id: BASE64_URL_SAFE_NO_PAD.encode(digest.as_ref()) };
        Ok(SigningKey { pair, random, public })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The 64-byte signature of `message`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature = self.pair.sign(&self.random, message).map_err(|_| anyhow!("signing a token failed"))?;
        Ok(signature.as_ref().to_vec())
    }
}

impl PublicKey {
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }

    /// The JSON Web Key of the discovery document.
    pub fn to_jwk(&self) -> Value {
        let half = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&self.point[range]);
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
               "x": half(1..33), "y": half(33..65)})
    }
}
