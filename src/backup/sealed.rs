//! A stream encrypted with a passphrase.
//!
//! ```text
//! magic, iterations (u32), salt (16 bytes)
//! frame: length of the text and whether it is the last (u32: 31 bits, 1 bit), ChaCha20-Poly1305 of the text
//! ```
//!
//! The key is PBKDF2-HMAC-SHA256 of the passphrase. A frame's nonce is its number and its head is authenticated with it:
//! frames cannot be changed, moved, or cut off unnoticed.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Read, Write};
use std::num::NonZeroU32;

pub const MAGIC: &[u8; 16] = b"kedge-sealed-1\n\n";

/// Guessing a passphrase costs that many hashes a try (OWASP's recommendation for PBKDF2-HMAC-SHA256).
const ITERATIONS: u32 = 600_000;

/// No file asks for more work than this.
const MAX_ITERATIONS: u32 = 10_000_000;

const FRAME_BYTES: usize = 64 << 10;
const SALT_BYTES: usize = 16;
const LAST: u32 = 1 << 31;

struct Frames {
    key: LessSafeKey,
    number: u64,
}

impl Frames {
    fn new(passphrase: &str, salt: &[u8], iterations: u32) -> io::Result<Self> {
        let iterations = NonZeroU32::new(iterations).filter(|n| n.get() <= MAX_ITERATIONS).ok_or_else(unreadable)?;
        let mut key = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase.as_bytes(), &mut key);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| io::Error::other("no key"))?;
        Ok(Frames { key: LessSafeKey::new(key), number: 0 })
    }

    /// Never the same twice under one key: the salt makes the key new for each stream.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

pub struct Sealer<W> {
    out: W,
    frames: Frames,
    text: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    pub fn new(out: W, passphrase: &str) -> io::Result<Self> {
        Self::with_iterations(out, passphrase, ITERATIONS)
    }

    fn with_iterations(mut out: W, passphrase: &str, iterations: u32) -> io::Result<Self> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("no randomness"))?;
        out.write_all(MAGIC)?;
        out.write_all(&iterations.to_be_bytes())?;
        out.write_all(&salt)?;
        Ok(Sealer { out, frames: Frames::new(passphrase, &salt, iterations)?, text: Vec::new() })
    }

    fn frame(&mut self, last: u32) -> io::Result<()> {
        let head = (self.text.len() as u32 | last).to_be_bytes();
        let nonce = self.frames.nonce();
        let sealed = self.frames.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut self.text);
        sealed.map_err(|_| io::Error::other("encryption failed"))?;
        self.out.write_all(&head)?;
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// Without this the stream cannot be read.
    pub fn finish(mut self) -> io::Result<W> {
        self.frame(LAST)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = FRAME_BYTES - self.text.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.text.extend_from_slice(taken);
        if self.text.len() == FRAME_BYTES {
            self.frame(0)?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub struct Opener<R> {
    input: R,
    frames: Frames,
    text: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Opener<R> {
    /// `input` stands behind the magic.
    pub fn new(mut input: R, passphrase: &str) -> io::Result<Self> {
        let (mut iterations, mut salt) = ([0; 4], [0; SALT_BYTES]);
        input.read_exact(&mut iterations)?;
        input.read_exact(&mut salt)?;
        let frames = Frames::new(passphrase, &salt, u32::from_be_bytes(iterations))?;
        Ok(Opener { input, frames, text: Vec::new(), at: 0, ended: false })
    }

    fn frame(&mut self) -> io::Result<()> {
        let mut head = [0; 4];
        self.input.read_exact(&mut head)?;
        let number = u32::from_be_bytes(head);
        let length = (number & !LAST) as usize;
        if length > FRAME_BYTES {
            return Err(unreadable());
        }
        self.text.resize(length + CHACHA20_POLY1305.tag_len(), 0);
        self.input.read_exact(&mut self.text)?;
        let nonce = self.frames.nonce();
        self.frames.key.open_in_place(nonce, Aad::from(head), &mut self.text).map_err(|_| unreadable())?;
        self.text.truncate(length);
        (self.at, self.ended) = (0, number & LAST != 0);
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() {
            if self.ended {
                return Ok(0);
            }
            self.frame()?;
        }
        let count = out.len().min(self.text.len() - self.at);
        out[..count].copy_from_slice(&self.text[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the passphrase is wrong, or the file is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(text: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::with_iterations(Vec::new(), "correct horse", 1000).expect("starts");
        sealer.write_all(text).expect("writes");
        sealer.finish().expect("finishes")
    }

    fn open(sealed: &[u8], passphrase: &str) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Opener::new(&sealed[MAGIC.len()..], passphrase)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_is_sealed_opens_with_its_passphrase_only() {
        for length in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, 2 * FRAME_BYTES + 7] {
            let text: Vec<u8> = (0..length).map(|i| (i / 7) as u8).collect();
            let sealed = seal(&text);
            assert!(sealed.starts_with(MAGIC));
            assert_eq!(open(&sealed, "correct horse").expect("opens"), text);
            assert!(open(&sealed, "correct house").is_err());
        }
    }

    #[test]
    fn frames_cannot_be_cut_off_moved_or_changed() {
        let sealed = seal(&vec![7; 3 * FRAME_BYTES - 5]);
        let frame = 4 + FRAME_BYTES + CHACHA20_POLY1305.tag_len();
        let start = MAGIC.len() + 4 + SALT_BYTES;
        let swapped = [&sealed[..start], &sealed[start + frame..start + 2 * frame], &sealed[start..start + frame]];
        let damaged = [
            sealed[..start + 2 * frame].to_vec(),
            sealed[..sealed.len() - 1].to_vec(),
            [&sealed[..start], &sealed[start + frame..]].concat(),
            [&swapped.concat()[..], &sealed[start + 2 * frame..]].concat(),
            sealed.iter().enumerate().map(|(i, b)| if i == start + 100 { b ^ 1 } else { *b }).collect(),
        ];
        for (number, bytes) in damaged.iter().enumerate() {
            assert!(open(bytes, "correct horse").is_err(), "{number}");
        }
    }
}
