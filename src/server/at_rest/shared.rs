//! Keys of servers that share a store. They are with the cluster's other keys there ([`common_keys`]), and every server
//! follows them.
//!
//! A new key must be known to all before any of them writes with it:
//!
//! 1. it is published as one that decrypts;
//! 2. every server that is there says that it has it ([`companions`]), or the rotation is refused, with the names of those
//!    that have not; asked again, it goes on with the same key;
//! 3. it is published as the one that encrypts;
//! 4. every server rewrites Secrets as it hears of that, whoever is first.
//!
//! Whatever is killed in between, each step leaves keys that read everything, and the next rotation goes on. A server that
//! starts says that it is there before it looks at the keys, so that none is missed.

use super::Sealed;
use super::keys::Keys;
use crate::server::common_keys::{self, ENCRYPTION, Files, KEY, Record};
use crate::server::companions;
use crate::store::{KeyRange, Revision, Store};
use crate::task::Group;
use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// How long other servers may take to say that they have a key.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause after the keys could not be followed.
const RETRY: Duration = Duration::from_secs(5);

/// Gives the cluster's token as it is now.
pub type TokenNow = Box<dyn Fn() -> anyhow::Result<String> + Send + Sync>;

/// The keys in the store, and this server's.
pub struct SharedKeys {
    store: Arc<dyn Store>,
    sealed: Arc<Sealed>,
    token: TokenNow,
    answer_within: Duration,
}

impl SharedKeys {
    pub fn new(store: Arc<dyn Store>, sealed: Arc<Sealed>, token: TokenNow) -> Arc<Self> {
        Arc::new(SharedKeys { store, sealed, token, answer_within: ANSWER_WITHIN })
    }

    /// Use the keys that are in the store now.
    pub async fn catch_up(&self) -> anyhow::Result<()> {
        let Some((record, _)) = common_keys::read(&*self.store).await? else { return Ok(()) };
        if record.keys.is_empty() || record.keys == *self.sealed.names().borrow() {
            return Ok(());
        }
        self.sealed.replace(keys_of(&self.open(&record).await?)?)
    }

    /// Do so whenever they change, until the group ends.
    pub fn follow(self: &Arc<Self>, group: &Group) {
        let keys = self.clone();
        group.spawn("encryption-keys", async move {
            loop {
                if let Err(error) = keys.follow_on().await {
                    warn!(error = format!("{error:#}"), "new encryption keys may be missed; trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn follow_on(&self) -> anyhow::Result<()> {
        let mut watch = self.store.watch(KeyRange::key(KEY), None).await.context("watching the keys in etcd")?;
        loop {
            self.catch_up().await?;
            watch.next().await.context("watching the keys in etcd")?;
        }
    }

    /// It takes a second of work, by design of its encryption.
    async fn open(&self, record: &Record) -> anyhow::Result<Files> {
        let (record, token) = (record.clone(), (self.token)()?);
        Group::blocking(move || record.open(&token)).await?
    }

    /// Have a new key encrypt Secrets, on all servers.
    pub async fn rotate(&self) -> anyhow::Result<()> {
        let next = self.publish_next().await.context("publishing a new key")?;
        let lacking = self.wait_until(|keys| keys.contains(&next)).await?;
        ensure!(
            lacking.is_empty(),
            "refused: no answer from {} within {} s, which must be able to read the new key {next} before it is used; \
             start these servers, or stop them, and ask again (nothing is encrypted with it yet)",
            lacking.join(", "),
            self.answer_within.as_secs()
        );
        self.promote(&next).await.with_context(|| format!("publishing that {next} encrypts"))?;
        let late = self.wait_until(|keys| keys.first() == Some(&next)).await?;
        if !late.is_empty() {
            warn!(servers = late.join(", "), "these servers do not encrypt with the new key yet");
        }
        Ok(())
    }

    async fn record(&self) -> anyhow::Result<(Record, Revision)> {
        common_keys::read(&*self.store).await?.context("there are no keys in etcd; start this server again")
    }

    /// Publish a key that decrypts only. One that is there from a rotation that was not finished is taken.
    async fn publish_next(&self) -> anyhow::Result<String> {
        let (record, revision) = self.record().await?;
        let files = self.open(&record).await?;
        let keys = keys_of(&files)?;
        if let Some(next) = record.next.clone().filter(|next| keys.names().contains(&next.as_str())) {
            return Ok(next);
        }
        let (keys, next) = keys.with_next()?;
        self.write((record.ca, revision), files, &keys, Some(next.clone())).await?;
        Ok(next)
    }

    async fn promote(&self, next: &str) -> anyhow::Result<()> {
        let (record, revision) = self.record().await?;
        if record.next.as_deref() != Some(next) {
            // Asked of two servers at once: the other was faster.
            ensure!(record.keys.first().is_some_and(|first| first == next), "another rotation is under way");
            return Ok(());
        }
        let files = self.open(&record).await?;
        let keys = keys_of(&files)?.led_by(next)?;
        self.write((record.ca, revision), files, &keys, None).await
    }

    /// Publish these keys among the cluster's others, in the place of what was `read`.
    async fn write(
        &self,
        read: (String, Revision),
        mut files: Files,
        keys: &Keys,
        next: Option<String>,
    ) -> anyhow::Result<()> {
        let (token, (ca, revision)) = ((self.token)()?, read);
        files.insert(ENCRYPTION.to_owned(), String::from_utf8(keys.text()?)?);
        let mut record = Group::blocking(move || Record::of(ca, &files, &token)).await??;
        record.next = next;
        if !common_keys::write(&*self.store, &record, revision).await? {
            bail!("another server has changed the keys in etcd at this moment; ask again");
        }
        Ok(())
    }

    /// Wait until what all servers say of their keys holds; the addresses of those for which it does not in time. One that
    /// is lost meanwhile is among them: it may only hang.
    async fn wait_until(&self, holds: impl Fn(&[String]) -> bool) -> anyhow::Result<Vec<String>> {
        let deadline = tokio::time::Instant::now() + self.answer_within;
        let mut missing = BTreeSet::new();
        loop {
            for (address, keys) in
                companions::keys_of_all(&*self.store).await.context("asking for the other servers")?
            {
                if holds(&keys) {
                    missing.remove(&address)
                } else {
                    missing.insert(address)
                };
            }
            if missing.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(missing.iter().map(IpAddr::to_string).collect());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn keys_of(files: &Files) -> anyhow::Result<Keys> {
    Keys::parse(files.get(ENCRYPTION).with_context(|| format!("the keys in etcd lack {ENCRYPTION}"))?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::companions::Companion;
    use crate::store::memory::Memory;
    use std::path::Path;

    struct Server {
        sealed: Arc<Sealed>,
        keys: Arc<SharedKeys>,
        group: Group,
    }

    /// A server at this address that has the first key.
    async fn server(store: &Arc<dyn Store>, scratch: &Path, address: &str) -> Server {
        let dir = scratch.join(address);
        std::fs::create_dir_all(dir.join("server/cred")).expect("a directory");
        let first = scratch.join("first");
        let _ = Sealed::over(store.clone(), &first).expect("makes a key");
        std::fs::copy(first.join("server").join(ENCRYPTION), dir.join("server").join(ENCRYPTION)).expect("copies");
        let sealed = Sealed::over(store.clone(), &dir).expect("opens");
        let keys = Arc::new(SharedKeys {
            store: store.clone(),
            sealed: sealed.clone(),
            token: Box::new(|| Ok("secret".to_owned())),
            answer_within: Duration::from_secs(2),
        });
        let mut companion = Companion::new(store.clone(), address.parse().expect("an address"), sealed.names());
        companion.announce().await.expect("is there");
        let (group, mut changed) = (Group::root(), sealed.names());
        group.spawn("announce", async move {
            while changed.changed().await.is_ok() {
                companion.announce().await.expect("is there");
            }
        });
        Server { sealed, keys, group }
    }

    #[tokio::test]
    async fn a_key_is_used_once_every_server_has_it() {
        let (scratch, store) = (tempfile::tempdir().expect("scratch"), Memory::open());
        let (first, second) =
            (server(&store, scratch.path(), "192.0.2.1").await, server(&store, scratch.path(), "192.0.2.2").await);
        let old = first.sealed.names().borrow().clone();
        let text = std::fs::read_to_string(scratch.path().join("first/server").join(ENCRYPTION)).expect("reads");
        let files = Files::from([(ENCRYPTION.to_owned(), text)]);
        let record = Record::of("ca".to_owned(), &files, "secret").expect("seals");
        assert!(common_keys::write(&*store, &record, Revision(0)).await.expect("writes"));
        first.keys.follow(&first.group);

        // The second does not follow.
        let refused = format!("{:#}", first.keys.rotate().await.expect_err("is refused"));
        assert!(refused.contains("no answer from 192.0.2.2 within 2 s"), "{refused}");
        let offered = first.sealed.names().borrow().clone();
        assert_eq!((offered.len(), &offered[0]), (2, &old[0]), "it is not used");
        assert_eq!(*second.sealed.names().borrow(), old);

        second.keys.follow(&second.group);
        second.keys.rotate().await.expect("goes on");
        let new = vec![offered[1].clone(), offered[0].clone()];
        for server in [&first, &second] {
            server.keys.catch_up().await.expect("has them");
            assert_eq!(*server.sealed.names().borrow(), new);
        }
        let (record, _) = common_keys::read(&*store).await.expect("reads").expect("is there");
        assert_eq!((record.keys, record.next), (new, None));
    }
}
