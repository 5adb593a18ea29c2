//! Sealed files: ChaCha20-Poly1305 under a key that HKDF (RFC 5869) makes from the node's private key. The file's name
//! is part of what is sealed, so files cannot be swapped.

use crate::sealing;
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use std::io;

/// The first bytes of a file: what it is, and the version of its form.
const MAGIC: &[u8; 8] = b"kedge\0k1";
const PURPOSE: &[u8] = b"kedge: what a node knew last";

pub struct Seal(LessSafeKey);

impl Seal {
    pub fn new(secret: &[u8]) -> Self {
        let key: UnboundKey = Salt::new(HKDF_SHA256, MAGIC)
            .extract(secret)
            .expand(&[PURPOSE], &CHACHA20_POLY1305)
            .expect("one key is never too much for HKDF")
            .into();
        Seal(LessSafeKey::new(key))
    }

    pub fn seal(&self, name: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let sealed =
            sealing::seal(&self.0, name.as_bytes(), bytes).map_err(|_| io::Error::other("cannot be sealed"))?;
        Ok([&MAGIC[..], &sealed].concat())
    }

    /// What was sealed under this name with this key; else why not.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let rest = sealed.strip_prefix(MAGIC).ok_or("of another version")?;
        sealing::open(&self.0, name.as_bytes(), rest).map_err(|_| "damaged, or sealed with another key")
    }
}
