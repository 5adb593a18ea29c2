//! Servers that share a store know of each other: each has a key there, attached to a lease that it renews. Their
//! addresses are the endpoints of Service `default/kubernetes`, for pods and for agents whose server is lost.

use super::bootstrap;
use crate::store::{Error, KeyRange, KeyValue, LeaseId, Op, Put, RangeRequest, Store, Txn};
use crate::task::Group;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Keys of servers, by address; outside of `/registry`, as the API does not lead there.
const KEYS: &str = "/kedge/servers/";

/// How long a server counts as there after it was heard of last (as long as for upstream's), and how often it is heard of.
const LEASE_SECONDS: u32 = 15;
const PERIOD: Duration = Duration::from_secs(5);

/// This server among those that share its store.
pub struct Companion {
    store: Arc<dyn Store>,
    own: IpAddr,
    lease: Option<LeaseId>,
    /// Names of the keys that it encrypts Secrets with.
    keys: watch::Receiver<Vec<String>>,
    told: Vec<String>,
}

/// What a server tells of itself.
#[derive(Default, Serialize, Deserialize)]
struct Told {
    /// Names of the keys that it can read Secrets with, that which it encrypts with first. Empty in older versions.
    #[serde(default)]
    keys: Vec<String>,
}

/// All servers that are there, with the names of the keys that they have.
pub async fn keys_of_all(store: &dyn Store) -> Result<Vec<(IpAddr, Vec<String>)>, Error> {
    let found = store.range(RangeRequest::of(KeyRange::prefix(KEYS))).await?;
    let server = |kv: &KeyValue| {
        let told: Told = serde_json::from_slice(&kv.value).unwrap_or_default();
        Some((address(&kv.key)?, told.keys))
    };
    Ok(found.kvs.iter().filter_map(server).collect())
}

fn address(key: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(key.strip_prefix(KEYS.as_bytes())?).ok()?.parse().ok()
}

impl Companion {
    pub fn new(store: Arc<dyn Store>, own: IpAddr, keys: watch::Receiver<Vec<String>>) -> Self {
        Companion { store, own, lease: None, keys, told: Vec::new() }
    }

    /// Say that this server is there. Gives the addresses of all that are, in order.
    pub async fn announce(&mut self) -> Result<Vec<IpAddr>, Error> {
        let kept = match self.lease {
            Some(lease) => match self.store.lease_renew(lease).await {
                Ok(_) => true,
                Err(Error::LeaseNotFound) => false,
                Err(error) => return Err(error),
            },
            None => false,
        };
        if !kept {
            let lease = LeaseId(rand::rng().random_range(1..i64::MAX));
            self.store.lease_grant(lease, LEASE_SECONDS).await?;
            self.lease = Some(lease);
        }
        let keys = self.keys.borrow_and_update().clone();
        if !kept || keys != self.told {
            self.tell(keys).await?;
        }
        let keys = RangeRequest { keys_only: true, ..RangeRequest::of(KeyRange::prefix(KEYS)) };
        let found = self.store.range(keys).await?;
        let mut all: Vec<IpAddr> = found.kvs.iter().filter_map(|kv| address(&kv.key)).collect();
        if !all.contains(&self.own) {
            // Another server with this address has just left.
            self.lease = None;
            all.push(self.own);
        }
        all.sort();
        Ok(all)
    }

    async fn tell(&mut self, keys: Vec<String>) -> Result<(), Error> {
        let told = Told { keys };
        let value = serde_json::to_vec(&told)
            .map_err(|e| Error::Failed { step: "telling other servers of this one", message: e.to_string() })?;
        let put = Put { key: self.key().into(), value: Some(value.into()), lease: self.lease };
        self.store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await?;
        self.told = told.keys;
        Ok(())
    }

    /// Say that it is not there any more. Gives those that are.
    async fn leave(&mut self) -> Result<Vec<IpAddr>, Error> {
        let all = self.announce().await?;
        if let Some(lease) = self.lease.take() {
            self.store.lease_revoke(lease).await?;
        }
        Ok(all.into_iter().filter(|address| *address != self.own).collect())
    }

    fn key(&self) -> String {
        format!("{KEYS}{}", self.own)
    }
}

/// Keep this server announced and the Service's endpoints up to date, until the group ends.
pub fn start(group: &Group, mut companion: Companion, client: kube::Client, config: bootstrap::Config) {
    let all = group.clone();
    let mut known = config.servers.clone();
    group.spawn_graceful("companions", async move {
        let mut ended = false;
        while !ended {
            ended = tokio::select! {
                () = tokio::time::sleep(PERIOD) => false,
                // Whoever has made another key waits for this.
                Ok(()) = companion.keys.changed() => false,
                () = all.cancelled() => true,
            };
            let there = if ended { companion.leave().await } else { companion.announce().await };
            let outcome = match there {
                Ok(there) if there == known || there.is_empty() => continue,
                Ok(there) => {
                    info!(servers = ?there, "the servers that share the store have changed");
                    bootstrap::publish(&client, &config, &there).await.map(|()| known = there)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = outcome {
                warn!(error = format!("{error:#}"), "the other servers may not know of this one; trying again");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn servers_come_and_go() {
        let store = Memory::open();
        let keys = watch::Sender::new(vec!["one".to_owned()]);
        let companion = |address: &str| Companion::new(store.clone(), address.parse().unwrap(), keys.subscribe());
        let (mut a, mut b) = (companion("192.0.2.1"), companion("2001:db8::1"));
        let (first, second) = (a.own, b.own);
        assert_eq!(a.announce().await.unwrap(), [first]);
        assert_eq!(b.announce().await.unwrap(), [first, second]);
        assert_eq!(a.announce().await.unwrap(), [first, second]);
        // What keys they have.
        keys.send_replace(vec!["one".to_owned(), "two".to_owned()]);
        b.announce().await.unwrap();
        let told = keys_of_all(&*store).await.unwrap();
        assert_eq!(told, [(first, vec!["one".to_owned()]), (second, vec!["one".to_owned(), "two".to_owned()])]);
        // Lost with its lease, and back.
        store.lease_revoke(a.lease.unwrap()).await.unwrap();
        assert_eq!(b.announce().await.unwrap(), [second]);
        assert_eq!(a.announce().await.unwrap(), [first, second]);
        // Started again before its old lease has ended.
        let mut again = companion("192.0.2.1");
        again.announce().await.unwrap();
        let _ = store.lease_revoke(a.lease.unwrap()).await;
        assert_eq!(again.announce().await.unwrap(), [first, second]);
        assert_eq!(b.leave().await.unwrap(), [first]);
        assert_eq!(again.announce().await.unwrap(), [first]);
    }
}
