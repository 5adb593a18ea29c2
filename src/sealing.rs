//! Bytes encrypted and authenticated under a key: a random nonce, the ciphertext, the tag. What they belong to (a file's
//! name, a store key) is authenticated with them, so that they cannot be moved elsewhere.
//!
//! Nonces of 96 random bits allow 2³² messages under a key (NIST SP 800-38D, 8.3).

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};

/// Seal bytes that belong to `place`. Errors: no randomness, or too long for the algorithm.
pub fn seal(key: &LessSafeKey, place: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce)?;
    let mut text = bytes.to_vec();
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut text)?;
    Ok([&nonce[..], &text, tag.as_ref()].concat())
}

/// What was sealed under this key for `place`. Errors: cut short, changed, of another key or place.
pub fn open(key: &LessSafeKey, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(Unspecified)?;
    let mut text = text.to_vec();
    let length = key.open_in_place(Nonce::try_assume_unique_for_key(nonce)?, Aad::from(place), &mut text)?.len();
    text.truncate(length);
    Ok(text)
}
