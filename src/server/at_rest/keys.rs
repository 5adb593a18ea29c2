//! The keys that Secrets are encrypted with, in a file of upstream's kind EncryptionConfiguration
//! (`apiserver.config.k8s.io/v1`) with the provider `aesgcm`. Values look as upstream's do, so that a kube-apiserver with
//! the same file reads them.

use crate::durable;
use crate::sealing;
use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What every encrypted value begins with.
const SEALED: &[u8] = b"k8s:enc:";
/// What those of this provider begin with; the key's name and a colon follow.
const PREFIX: &str = "k8s:enc:aesgcm:v1:";
const SECRET_BYTES: usize = 32;

/// Keys that stay after rotations, the newest among them: rolling snapshots and backups may still need the older ones.
const KEEP_KEYS: usize = 8;

/// Where the keys are kept below a data directory (the place that k3s has for them).
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("server/cred/encryption-config.json")
}

/// All keys, the newest first: it encrypts, all decrypt. While servers that share a store hear of a new one, that is the
/// second ([`super::shared`]).
pub struct Keys(Vec<Key>);

struct Key {
    name: String,
    secret: [u8; SECRET_BYTES],
    aead: LessSafeKey,
}

impl Keys {
    /// Read the keys, or make the first one.
    pub fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        if !path.exists() {
            if let Some(folder) = path.parent() {
                durable::create_dir(folder, 0o700).with_context(name)?;
            }
            let keys = Keys(vec![Key::generate("")?]);
            keys.save(path)?;
            return Ok(keys);
        }
        let text = std::fs::read(path).with_context(name)?;
        Self::parse(&text).with_context(name)
    }

    /// From the content of the file.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let file: Value = serde_json::from_slice(text)?;
        let listed = file.pointer("/resources/0/providers/0/aesgcm/keys").and_then(Value::as_array);
        let listed = listed.context("expected the provider aesgcm with keys first")?;
        let key = |entry: &Value| {
            let field =
                |name: &str| entry.get(name).and_then(Value::as_str).with_context(|| format!("a key has no {name}"));
            let secret = BASE64_STANDARD.decode(field("secret")?)?;
            let secret = secret.try_into().map_err(|_| anyhow::anyhow!("a key is not of {SECRET_BYTES} bytes"))?;
            Key::new(field("name")?.to_owned(), secret)
        };
        let keys = listed.iter().map(key).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!keys.is_empty(), "there is no key");
        Ok(Keys(keys))
    }

    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        durable::write(path, &self.text()?, durable::SECRET).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The content of the file.
    pub fn text(&self) -> anyhow::Result<Vec<u8>> {
        let key = |key: &Key| json!({"name": key.name, "secret": BASE64_STANDARD.encode(key.secret)});
        let keys: Vec<Value> = self.0.iter().map(key).collect();
        let file = json!({
            "kind": "EncryptionConfiguration",
            "apiVersion": "apiserver.config.k8s.io/v1",
            "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys}}, {"identity": {}}]}],
        });
        Ok(serde_json::to_vec_pretty(&file)?)
    }

    /// These keys behind a new one.
    pub fn with_new(&self) -> anyhow::Result<Self> {
        let mut keys = vec![Key::generate(&self.0[0].name)?];
        for key in self.0.iter().take(KEEP_KEYS - 1) {
            keys.push(Key::new(key.name.clone(), key.secret)?);
        }
        Ok(Keys(keys))
    }

    /// These keys and a new one behind the first: it decrypts, and does not encrypt yet. Gives its name, too.
    pub fn with_next(&self) -> anyhow::Result<(Self, String)> {
        let mut keys = self.with_new()?;
        keys.0.swap(0, 1);
        let name = keys.0[1].name.clone();
        Ok((keys, name))
    }

    /// These keys, of which the one with this name encrypts.
    pub fn led_by(mut self, name: &str) -> anyhow::Result<Self> {
        let at = self.0.iter().position(|key| key.name == name).with_context(|| format!("there is no key {name}"))?;
        self.0[..=at].rotate_right(1);
        Ok(self)
    }

    /// Names, the newest first.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.name.as_str()).collect()
    }

    /// Encrypt the value of a store key. The key is authenticated with it: a value cannot be put under another one.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Bytes, Broken> {
        let newest = self.0.first().ok_or(Broken)?;
        let sealed = sealing::seal(&newest.aead, key, value).map_err(|_| Broken)?;
        Ok([PREFIX.as_bytes(), newest.name.as_bytes(), b":", &sealed].concat().into())
    }

    /// Decrypt a stored value; one that is not encrypted is given as it is.
    pub fn open(&self, key: &[u8], stored: &Bytes) -> Result<Bytes, Broken> {
        if !stored.starts_with(SEALED) {
            return Ok(stored.clone());
        }
        let (name, sealed) = split(stored).ok_or(Broken)?;
        let used = self.0.iter().find(|key| key.name.as_bytes() == name).ok_or(Broken)?;
        Ok(sealing::open(&used.aead, key, sealed).map_err(|_| Broken)?.into())
    }

    /// Whether a stored value is encrypted with the newest key.
    pub fn is_current(&self, stored: &[u8]) -> bool {
        split(stored).is_some_and(|(name, _)| self.0.first().is_some_and(|key| key.name.as_bytes() == name))
    }
}

/// The name of a value's key, and what is behind it.
fn split(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = stored.strip_prefix(PREFIX.as_bytes())?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// A value that none of the keys opens.
#[derive(Debug, PartialEq)]
pub struct Broken;

impl Key {
    fn new(name: String, secret: [u8; SECRET_BYTES]) -> anyhow::Result<Self> {
        ensure!(!name.is_empty() && !name.contains(':'), "{name:?} is no name for a key");
        let aead = UnboundKey::new(&AES_256_GCM, &secret).map_err(|_| anyhow::anyhow!("the key cannot be used"))?;
        Ok(Key { name, secret, aead: LessSafeKey::new(aead) })
    }

    /// A new key with a name of its own.
    fn generate(before: &str) -> anyhow::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let mut name = format!("aesgcmkey-{}", crate::time::rfc3339(crate::time::now()).replace(':', "-"));
        if before.starts_with(&name) {
            name = format!("{before}x");
        }
        Key::new(name, secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_open_under_their_own_key_only() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = file(scratch.path());
        let first = Keys::load_or_create(&path).expect("makes one");
        let sealed = first.seal(b"/registry/secrets/a/b", b"hush").expect("seals");
        assert!(sealed.starts_with(format!("{PREFIX}{}:", first.names()[0]).as_bytes()));
        assert_ne!(sealed, first.seal(b"/registry/secrets/a/b", b"hush").expect("seals"));
        let open = |keys: &Keys, key: &str, value: &Bytes| keys.open(key.as_bytes(), value);
        assert_eq!(open(&first, "/registry/secrets/a/b", &sealed), Ok("hush".into()));
        assert_eq!(open(&first, "/registry/secrets/a/c", &sealed), Err(Broken), "moved to another key");
        assert_eq!(open(&first, "/x", &"{}".into()), Ok("{}".into()), "from before encryption");
        for value in ["k8s:enc:", "k8s:enc:aesgcm:v1:", "k8s:enc:aesgcm:v1:unknown:abc", "k8s:enc:kms:v2:x:y"] {
            assert_eq!(open(&first, "/x", &value.into()), Err(Broken), "{value}");
        }
        for at in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= 1;
            assert_ne!(open(&first, "/registry/secrets/a/b", &damaged.into()), Ok("hush".into()), "{at}");
        }
    }

    #[test]
    fn older_keys_stay_readable_for_some_rotations() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = file(scratch.path());
        let mut keys = Keys::load_or_create(&path).expect("makes one");
        let sealed = keys.seal(b"/a", b"1").expect("seals");
        assert!(keys.is_current(&sealed) && !keys.is_current(b"{}"));
        for rotation in 1..=KEEP_KEYS {
            keys = keys.with_new().expect("makes one");
            keys.save(&path).expect("saves");
            keys = Keys::load_or_create(&path).expect("loads");
            let mut names = keys.names();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), (rotation + 1).min(KEEP_KEYS));
            assert!(!keys.is_current(&sealed));
            assert_eq!(keys.open(b"/a", &sealed).is_ok(), rotation < KEEP_KEYS, "{rotation}");
        }
        std::fs::write(&path, "{}").expect("writes");
        let error = format!("{:#}", Keys::load_or_create(&path).err().expect("is refused"));
        assert!(error.contains("encryption-config.json"), "{error}");
    }
}
