//! Servers that share a store are one cluster: they have the same CAs, service-account key and encryption keys. The first
//! one leaves these in the store, encrypted with the cluster's token; further ones fetch them before they make any.
//!
//! Their place is outside `/registry`: the API does not lead there.

use crate::backup::sealed::{MAGIC, Opener, Sealer};
use crate::durable;
use crate::join::token::{self, Token};
use crate::server::at_rest;
use crate::store::{Compare, KeyRange, Op, RangeRequest, Revision, Store, Txn};
use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use tracing::info;

/// Where they are in the store.
pub const KEY: &str = "/kedge/bootstrap";

/// The keys that Secrets are encrypted with. They change while servers run ([`at_rest::shared`]).
pub const ENCRYPTION: &str = "cred/encryption-config.json";

/// The server's CA. It is written last: where it is, the others are.
const CA: &str = "tls/server-ca.crt";

/// What servers have in common, below `server/` in their data directories.
const FILES: [&str; 8] = [
    "tls/client-ca.crt",
    "tls/client-ca.key",
    "tls/request-header-ca.crt",
    "tls/request-header-ca.key",
    "tls/service-account.key",
    ENCRYPTION,
    "tls/server-ca.key",
    CA,
];

/// No token at all where one is needed.
const NO_TOKEN: &str = "this etcd holds a cluster already: give its token with --token or --token-file (on another of its \
                        servers, it is in DATA-DIR/server/node-token)";

/// What is in the store.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    /// SHA-256 of the server's CA: tells clusters apart without the token.
    pub ca: String,
    /// The files by name, encrypted as backups are, in base64.
    sealed: String,
    /// Names of the encryption keys among them, that which encrypts first: tells without the token who lacks one. Empty
    /// if an older version wrote it.
    #[serde(default)]
    pub keys: Vec<String>,
    /// That of them which is to encrypt, once all servers have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Contents by name.
pub type Files = BTreeMap<String, String>;

impl Record {
    pub fn of(ca: String, files: &Files, token: &str) -> anyhow::Result<Self> {
        let keys = files.get(ENCRYPTION).map(|text| at_rest::key_names(text.as_bytes())).transpose()?;
        let sealed = seal(files, &Token::parse(token)?.secret)?;
        Ok(Record { ca, sealed, keys: keys.unwrap_or_default(), next: None })
    }

    pub fn open(&self, token: &str) -> anyhow::Result<Files> {
        open(self, &Token::parse(token)?.secret).context(
            "this server's token does not open the cluster's keys in etcd: was it rotated? Give all servers the same \
             (--token), and start the one first that it was made on",
        )
    }
}

/// Fetch the keys of the store's cluster, if it has one and this server has none yet. `token`: what the flags say.
/// Fails if the store is of another cluster than this server.
pub async fn fetch(store: &dyn Store, data_dir: &Path, token: Option<&str>) -> anyhow::Result<()> {
    let Some((record, _)) = read(store).await? else { return Ok(()) };
    let folder = data_dir.join("server");
    if folder.join(CA).exists() {
        check_cluster(&record, &folder)?;
        return catch_up(&record, &folder, token);
    }
    let token = Token::parse(token.context(NO_TOKEN)?).context("--token")?;
    if let Some(pinned) = token.ca {
        ensure!(token::hex(&pinned) == record.ca, "--token: the token is of another cluster than this etcd holds");
    }
    let files = open(&record, &token.secret).context("--token is not the token of the cluster in this etcd")?;
    FILES.iter().try_for_each(|name| keep(&folder, name, &files))?;
    info!("this server has the keys of the cluster in etcd");
    Ok(())
}

/// Keep one of the files.
fn keep(folder: &Path, name: &str, files: &Files) -> anyhow::Result<()> {
    let content = files.get(name).with_context(|| format!("the keys in etcd lack {name}"))?;
    let path = folder.join(name);
    let mode = if name.ends_with(".crt") { durable::PUBLIC } else { durable::SECRET };
    let write = || -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| durable::create_dir(parent, 0o700))?;
        durable::write(&path, content.as_bytes(), mode)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Encryption keys may have been rotated while this server was off.
fn catch_up(record: &Record, folder: &Path, given: Option<&str>) -> anyhow::Result<()> {
    let own = own_keys(folder)?;
    if record.keys.is_empty() || record.keys == own {
        return Ok(());
    }
    let kept = std::fs::read_to_string(folder.join("node-token")).ok();
    let tokens = given.map(str::to_owned).into_iter().chain(kept);
    match tokens.map(|token| record.open(token.trim())).find_map(Result::ok) {
        Some(files) => keep(folder, ENCRYPTION, &files),
        None => check_keys(record, &own),
    }
}

/// Names of the encryption keys that this server has.
fn own_keys(folder: &Path) -> anyhow::Result<Vec<String>> {
    let path = folder.join(ENCRYPTION);
    match std::fs::read(&path) {
        Ok(text) => at_rest::key_names(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Without the cluster's token a server may go on with the keys that it has, if these are all.
fn check_keys(record: &Record, own: &[String]) -> anyhow::Result<()> {
    match record.keys.iter().find(|key| !own.contains(key)) {
        None => Ok(()),
        Some(key) => bail!(
            "this server lacks the key {key} that Secrets of the cluster in etcd may be encrypted with, and its token does \
             not open the keys there: give it the token of the other servers (--token)"
        ),
    }
}

/// Leave this server's keys in the store, if it has none, or none that the token opens (it has been rotated).
pub async fn publish(store: &dyn Store, data_dir: &Path, token: &str) -> anyhow::Result<()> {
    let folder = data_dir.join("server");
    let secret = Token::parse(token)?.secret;
    let (record, revision) = match read(store).await? {
        None => (None, Revision(0)),
        Some((record, revision)) => (Some(record), revision),
    };
    let mut next = None;
    if let Some(record) = record {
        check_cluster(&record, &folder)?;
        if open(&record, &secret).is_ok() && !record.keys.is_empty() {
            return Ok(());
        }
        check_keys(&record, &own_keys(&folder)?)?;
        next = record.next;
    }
    let files = FILES.iter().map(|name| {
        let path = folder.join(name);
        let content = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(((*name).to_owned(), content))
    });
    let record = Record { next, ..Record::of(fingerprint(&folder)?, &files.collect::<anyhow::Result<_>>()?, token)? };
    let written = write(store, &record, revision).await?;
    ensure!(written, "another server was faster in leaving the cluster's keys in etcd; start again");
    Ok(())
}

/// Put the record in the place of the one that was read at a revision (0: of none). Says whether that was still there.
pub async fn write(store: &dyn Store, record: &Record, read: Revision) -> anyhow::Result<bool> {
    let put = Op::put(KEY, serde_json::to_vec(record)?);
    let txn = Txn { compare: vec![Compare::unchanged(KEY, read)], success: vec![put], ..Txn::default() };
    Ok(store.txn(txn).await.context("leaving the cluster's keys in etcd")?.succeeded)
}

pub async fn read(store: &dyn Store) -> anyhow::Result<Option<(Record, Revision)>> {
    let found =
        store.range(RangeRequest::of(KeyRange::key(KEY))).await.context("reading the cluster's keys in etcd")?;
    let Some(kv) = found.kvs.into_iter().next() else { return Ok(None) };
    let record = serde_json::from_slice(&kv.value).with_context(|| format!("{KEY} in etcd"))?;
    Ok(Some((record, kv.mod_revision)))
}

fn check_cluster(record: &Record, folder: &Path) -> anyhow::Result<()> {
    if record.ca == fingerprint(folder)? {
        return Ok(());
    }
    bail!(
        "the cluster in this etcd is another one than this server's: check --datastore-endpoint, or remove {0}/tls and \
         {0}/cred to have the server join that one",
        folder.display()
    )
}

fn fingerprint(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join(CA);
    let pem = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let der = CertificateDer::from_pem_slice(&pem).with_context(|| path.display().to_string())?;
    Ok(token::hex(&token::sha256(&der)))
}

fn seal(files: &Files, secret: &str) -> anyhow::Result<String> {
    let mut sealer = Sealer::new(Vec::new(), secret)?;
    sealer.write_all(&serde_json::to_vec(files)?)?;
    Ok(BASE64_STANDARD.encode(sealer.finish()?))
}

fn open(record: &Record, secret: &str) -> anyhow::Result<Files> {
    let sealed = BASE64_STANDARD.decode(&record.sealed)?;
    let stream = sealed.strip_prefix(MAGIC).context("not the form that this version knows")?;
    let mut text = Vec::new();
    Opener::new(stream, secret)?.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::at_rest::Sealed;
    use crate::server::at_rest::shared::SharedKeys;
    use crate::store::memory::Memory;
    use std::path::PathBuf;

    /// A data directory with keys, which say `name` but for those that are looked into.
    fn host(scratch: &Path, name: &str) -> PathBuf {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        for file in FILES.into_iter().filter(|file| *file != ENCRYPTION) {
            let path = scratch.join(name).join("server").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, if file == CA { &ca } else { name }).unwrap();
        }
        Sealed::over(Memory::open(), &scratch.join(name)).unwrap();
        scratch.join(name)
    }

    fn content(host: &Path) -> Vec<Option<String>> {
        FILES.iter().map(|file| std::fs::read_to_string(host.join("server").join(file)).ok()).collect()
    }

    #[tokio::test]
    async fn a_further_server_gets_the_keys_for_the_token() {
        let (scratch, store) = (tempfile::tempdir().unwrap(), Memory::open());
        let (first, second) = (host(scratch.path(), "first"), scratch.path().join("second"));
        fetch(&*store, &second, None).await.expect("nobody has left any");
        publish(&*store, &first, "secret").await.expect("leaves them");
        let left = store.range(RangeRequest::of(KeyRange::key(KEY))).await.unwrap();
        publish(&*store, &first, "secret").await.expect("they are there");
        assert_eq!(store.range(RangeRequest::of(KeyRange::key(KEY))).await.unwrap().kvs, left.kvs);

        let refused = async |token| format!("{:#}", fetch(&*store, &second, token).await.unwrap_err());
        assert!(refused(None).await.contains("holds a cluster already"));
        assert!(refused(Some("wrong")).await.contains("not the token of the cluster"));
        assert!(refused(Some(&token::pinned(&[1; 32], "secret"))).await.contains("another cluster"));
        assert_eq!(content(&second), vec![None; FILES.len()], "a server without the token gets nothing");
        fetch(&*store, &second, Some("secret")).await.expect("fetches them");
        assert_eq!(content(&second), content(&first));
        let mode = |file| std::os::unix::fs::PermissionsExt::mode(&second.join(file).metadata().unwrap().permissions());
        assert_eq!(mode("server/tls/server-ca.key") & 0o777, 0o600);
        fetch(&*store, &second, None).await.expect("later it needs no token");

        let other = host(scratch.path(), "other");
        for outcome in [fetch(&*store, &other, Some("secret")).await, publish(&*store, &other, "secret").await] {
            let error = format!("{:#}", outcome.unwrap_err());
            assert!(error.contains("another one than this server's"), "{error}");
        }
    }

    /// Another key encrypts Secrets: by the server with this data directory, which is the only one that runs.
    async fn rotate(store: &std::sync::Arc<dyn Store>, host: &Path) {
        let sealed = Sealed::over(store.clone(), host).unwrap();
        let keys = SharedKeys::new(store.clone(), sealed.clone(), Box::new(|| Ok("secret".to_owned())));
        keys.rotate().await.expect("rotates");
        keys.catch_up().await.expect("takes them");
        assert_eq!(*sealed.names().borrow(), read(&**store).await.unwrap().unwrap().0.keys);
    }

    #[tokio::test]
    async fn a_server_that_was_off_has_the_newest_encryption_keys_when_it_starts() {
        let (scratch, store) = (tempfile::tempdir().unwrap(), Memory::open());
        let (first, second) = (host(scratch.path(), "first"), scratch.path().join("second"));
        publish(&*store, &first, "secret").await.expect("leaves them");
        fetch(&*store, &second, Some("secret")).await.expect("fetches them");
        rotate(&store, &first).await;
        // Its token is not the right one: it must not go on, nor leave what it has in place of the newer ones.
        for outcome in [fetch(&*store, &second, Some("other")).await, publish(&*store, &second, "other").await] {
            let error = format!("{:#}", outcome.unwrap_err());
            assert!(error.contains("lacks the key"), "{error}");
        }
        std::fs::write(second.join("server/node-token"), "secret\n").unwrap();
        fetch(&*store, &second, None).await.expect("fetches the newer");
        let keys = |host: &Path| own_keys(&host.join("server")).unwrap();
        assert_eq!((keys(&second).len(), keys(&second)), (2, keys(&first)));
        // With all of them it may have another token.
        fetch(&*store, &second, Some("other")).await.expect("lacks nothing");
        publish(&*store, &second, "other").await.expect("leaves them anew");
        assert_eq!(read(&*store).await.unwrap().unwrap().0.keys, keys(&first));
    }

    #[tokio::test]
    async fn a_rotated_token_opens_them_after_a_start() {
        let (scratch, store) = (tempfile::tempdir().unwrap(), Memory::open());
        let (first, second) = (host(scratch.path(), "first"), scratch.path().join("second"));
        publish(&*store, &first, "old").await.expect("leaves them");
        publish(&*store, &first, "new").await.expect("leaves them anew");
        assert!(fetch(&*store, &second, Some("old")).await.is_err());
        fetch(&*store, &second, Some("new")).await.expect("fetches them");
        assert_eq!(content(&second), content(&first));
    }
}
