//! A snapshot as etcd gives it: its database file, then the SHA-256 of that.

use super::bolt::{Plan, Writer};
use super::form::{self, KEY_BUCKET, revision_key};
use crate::store::proto::StoredLease;
use crate::store::{Error, Snapshot};
use prost::Message;
use sha2::{Digest, Sha256};

/// Bytes of one part, about.
const PART_BYTES: usize = 256 << 10;

/// Buckets that etcd makes at its first start and expects; this store has nothing to put into them.
const EMPTY_BUCKETS: [&[u8]; 7] =
    [b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed"];

/// The file, part by part. The store's snapshot is read twice: once for the sizes.
pub struct Parts {
    snapshot: Box<dyn Snapshot>,
    stage: Stage,
    hash: Sha256,
    /// Bytes that are still to come, the hash not counted.
    remaining: u64,
}

enum Stage {
    Start,
    Writes(Writer),
    Leases(Writer),
    Hash,
    End,
}

/// Bytes, and how many are still to come.
pub type Part = (Vec<u8>, u64);

impl Parts {
    pub fn of(snapshot: Box<dyn Snapshot>) -> Self {
        Parts { snapshot, stage: Stage::Start, hash: Sha256::new(), remaining: 0 }
    }

    pub async fn next(&mut self) -> Result<Option<Part>, Error> {
        let bytes = match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Start => self.start().await?,
            Stage::Writes(writer) => self.writes(writer).await?,
            Stage::Leases(writer) => self.leases(writer),
            Stage::Hash => return Ok(Some((self.hash.clone().finalize().to_vec(), 0))),
            Stage::End => return Ok(None),
        };
        self.hash.update(&bytes);
        self.remaining = self.remaining.saturating_sub(bytes.len() as u64);
        Ok(Some((bytes, self.remaining)))
    }

    async fn start(&mut self) -> Result<Vec<u8>, Error> {
        let mut plan = Plan::new();
        loop {
            let writes = self.snapshot.next().await?;
            if writes.is_empty() {
                break;
            }
            for write in &writes {
                let (key, value_len) = form::sizes(write);
                plan.add(&key, value_len);
            }
        }
        plan.end_tree(KEY_BUCKET);
        for (key, value) in self.stored_leases() {
            plan.add(&key, value.len());
        }
        plan.end_tree(b"lease");
        plan.inline(b"meta", self.meta());
        EMPTY_BUCKETS.into_iter().for_each(|name| plan.inline(name, Vec::new()));
        self.remaining = plan.bytes();
        self.snapshot.rewind();
        let (head, writer) = plan.start();
        self.stage = Stage::Writes(writer);
        Ok(head)
    }

    async fn writes(&mut self, mut writer: Writer) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while out.len() < PART_BYTES {
            let writes = self.snapshot.next().await?;
            if writes.is_empty() {
                out.extend(writer.end_tree());
                self.stage = Stage::Leases(writer);
                return Ok(out);
            }
            for write in writes {
                let (key, value) = form::entry(write);
                out.extend(writer.add(key, value).unwrap_or_default());
            }
        }
        self.stage = Stage::Writes(writer);
        Ok(out)
    }

    fn leases(&mut self, mut writer: Writer) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in self.stored_leases() {
            out.extend(writer.add(key, value).unwrap_or_default());
        }
        out.extend(writer.end_tree());
        self.stage = Stage::Hash;
        out
    }

    /// Leases as etcd keeps them, sorted by key.
    fn stored_leases(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entry = |lease: &crate::store::LeaseStatus| {
            let stored =
                StoredLease { id: lease.id.0, ttl: lease.granted.into(), remaining_ttl: lease.remaining.into() };
            (lease.id.0.to_be_bytes().to_vec(), stored.encode_to_vec())
        };
        let mut leases: Vec<_> = self.snapshot.head().leases.iter().map(entry).collect();
        leases.sort();
        leases
    }

    fn meta(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut meta = vec![(b"consistent_index".to_vec(), self.snapshot.head().revision.0.to_be_bytes().to_vec())];
        let compacted = self.snapshot.head().compacted;
        if compacted.0 > 1 {
            for name in ["finishedCompactRev", "scheduledCompactRev"] {
                meta.push((name.as_bytes().to_vec(), revision_key(compacted, 0).to_vec()));
            }
        }
        meta.push((b"term".to_vec(), super::answer::RAFT_TERM.to_be_bytes().to_vec()));
        meta
    }
}
