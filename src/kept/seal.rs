//! Sealed files: ChaCha20-Poly1305 under a key that HKDF (RFC 5869) makes from the node's private key. The file's name
//! is part of what is sealed, so files cannot be swapped.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::io;

/// The first bytes of a file: what it is, and the version of its form.
const MAGIC: &[u8; 8] = b"kedge\0k1";
const PURPOSE: &[u8] = b"kedge: what a node knew last";

pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    pub fn new(secret: &[u8]) -> Self {
        let key: UnboundKey = Salt::new(HKDF_SHA256, MAGIC)
            .extract(secret)
            .expand(&[PURPOSE], &CHACHA20_POLY1305)
            .expect("one key is never too much for HKDF")
            .into();
        Seal { key: LessSafeKey::new(key), random: SystemRandom::new() }
    }

    pub fn seal(&self, name: &str, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| io::Error::other("no random bytes"))?;
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut bytes)
            .map_err(|_| io::Error::other("too long to be sealed"))?;
        Ok([&MAGIC[..], &nonce[..], &bytes[..], tag.as_ref()].concat())
    }

    /// What was sealed under this name with this key; else why not.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let rest = sealed.strip_prefix(MAGIC).ok_or("of another version")?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or("cut short")?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| "cut short")?;
        let mut bytes = rest.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(name), &mut bytes);
        let length = opened.map_err(|_| "damaged, or sealed with another key")?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}
