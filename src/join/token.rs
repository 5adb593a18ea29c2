//! The forms a token comes in: `K10<sha256 of the server's CA>::<user>:<secret>` (pins the server), `<id>.<secret>`
//! (kubeadm's bootstrap tokens, also behind `K10…::`), and the bare secret (trust on first use).

use anyhow::{Context, bail, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// SHA-256.
pub type Digest = [u8; 32];

/// User in the tokens that the server makes; any is accepted.
pub const USER: &str = "node";

/// What is needed to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the DER of the server's CA certificate (`openssl x509 -fingerprint -sha256`).
    pub ca: Option<Digest>,
    /// What is sent as bearer token: `SECRET` or `ID.SECRET`.
    pub secret: String,
}

impl Token {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        ensure!(!text.is_empty(), "the token is empty");
        let fits = |c: char| c.is_ascii_graphic();
        ensure!(text.chars().all(fits), "the token contains spaces or characters that no token has; paste it again");
        let (ca, rest) = match text.strip_prefix("K10") {
            Some(pinned) if pinned.contains("::") => {
                let (hash, rest) = pinned.split_once("::").unwrap_or_default();
                let hash = digest(hash).context("the part of the token between K10 and :: is not a SHA-256 in hex")?;
                (Some(hash), rest)
            }
            Some(_) if text.len() > 64 => bail!("the token starts with K10 but has no `::`; paste all of it"),
            _ => (None, text),
        };
        let secret = rest.split_once(':').map_or(rest, |(_, secret)| secret);
        ensure!(!secret.is_empty(), "the token has no secret after `::`; paste all of it");
        Ok(Token { ca, secret: secret.to_owned() })
    }

    /// Whether this is a bootstrap token: an object of the API with an end, not the server's own secret.
    pub fn is_bootstrap(&self) -> bool {
        let part = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        self.secret.split_once('.').is_some_and(|(id, secret)| part(id, 6) && part(secret, 16))
    }
}

impl std::fmt::Debug for Token {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("ca", &self.ca.map(|d| hex(&d))).finish_non_exhaustive()
    }
}

/// The pinning form of a node's token.
pub fn pinned(ca: &Digest, secret: &str) -> String {
    format!("K10{}::{USER}:{secret}", hex(ca))
}

/// A bootstrap token in the form that pins this CA (PEM).
pub fn pin(ca: &[u8], bootstrap_token: &str) -> anyhow::Result<String> {
    let der = CertificateDer::from_pem_slice(ca).context("the CA is not PEM")?;
    Ok(format!("K10{}::{bootstrap_token}", hex(&sha256(&der))))
}

/// kubeadm's `sha256:<hex>`.
pub fn public_key_hash(text: &str) -> anyhow::Result<Digest> {
    let hex = text.strip_prefix("sha256:").context("expected sha256:HEX")?;
    digest(hex).context("expected 64 hexadecimal digits after sha256:")
}

fn digest(hex: &str) -> Option<Digest> {
    let mut out = Digest::default();
    if hex.len() != 2 * out.len() || !hex.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = Digest::default();
    out.copy_from_slice(digest.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        let hash = "ab".repeat(32);
        let long = |rest: &str| format!("K10{hash}::{rest}");
        // (text, pinned, secret, bootstrap)
        let cases = [
            (long("node:s3cret"), true, "s3cret", false),
            (long("server:a:b"), true, "a:b", false),
            (long("abcdef.0123456789abcdef"), true, "abcdef.0123456789abcdef", true),
            ("abcdef.0123456789abcdef".into(), false, "abcdef.0123456789abcdef", true),
            (" s3cret\n".into(), false, "s3cret", false),
            ("node:s3cret".into(), false, "s3cret", false),
            ("K10".into(), false, "K10", false),
            ("ABCDEF.0123456789abcdef".into(), false, "ABCDEF.0123456789abcdef", false),
        ];
        for (text, is_pinned, secret, bootstrap) in cases {
            let token = Token::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((token.ca.is_some(), token.secret.as_str()), (is_pinned, secret), "{text}");
            assert_eq!(token.is_bootstrap(), bootstrap, "{text}");
            assert!(!format!("{token:?}").contains(secret) || secret == "K10", "{text}");
        }
        assert_eq!(
            Token::parse(&pinned(&[0xab; 32], "x")).unwrap(),
            Token { ca: Some([0xab; 32]), secret: "x".into() }
        );
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "empty"),
            ("a b", "spaces"),
            ("K10zz::node:x", "not a SHA-256"),
            (&format!("K10{}::", "ab".repeat(32)), "no secret"),
            (&format!("K10{}", "ab".repeat(32)), "no `::`"),
        ];
        for (text, part) in cases {
            let error = Token::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(public_key_hash("sha256:ab").is_err());
        assert!(public_key_hash(&"ab".repeat(32)).is_err());
        assert_eq!(public_key_hash(&format!("sha256:{}", "ab".repeat(32))).unwrap(), [0xab; 32]);
    }
}
