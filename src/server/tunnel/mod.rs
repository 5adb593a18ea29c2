//! Tunnels of agents: who has one, and streams through it. The protocol is [`crate::wire::tunnel`]'s.

mod endpoint;

pub use endpoint::endpoint;

use crate::time;
use crate::wire::tunnel::{BodyStream, MAX_STREAMS, Open, Refusal, Target};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// An agent must have dialed and answered within this time; also how long dialing waits for a free stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams asked for and not yet read by the connection; when full, asking waits.
const QUEUE_OPENS: usize = 32;

/// All tunnels of this server.
#[derive(Default)]
pub struct Tunnels {
    nodes: Mutex<HashMap<String, Arc<Tunnel>>>,
    /// Streams asked for, by id. Bounded by the tunnels' slots.
    waiting: Mutex<HashMap<String, Waiting>>,
    generation: AtomicU64,
}

/// The way to one node.
struct Tunnel {
    /// A later tunnel of the same node has a greater one.
    generation: u64,
    peer: Option<SocketAddr>,
    since: String,
    asks: mpsc::Sender<Bytes>,
    /// One for each stream; they outlive a reconnection.
    slots: Arc<Semaphore>,
    opened: AtomicU64,
}

struct Waiting {
    node: String,
    answer: oneshot::Sender<Result<BodyStream, Refusal>>,
}

/// Why a tunnel gave no stream.
#[derive(Debug)]
pub enum Failure {
    /// The address is none of the node's: others may have a way there.
    Foreign(String),
    Io(io::Error),
}

/// A tunnel as `kedge status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    pub node: String,
    /// Where the agent's connection comes from.
    pub address: Option<SocketAddr>,
    /// RFC 3339.
    pub since: String,
    /// Open now.
    pub streams: usize,
    /// Opened since the tunnel is there.
    pub opened: u64,
}

impl Tunnels {
    /// A stream to `target` through the tunnel of `node`; None where that node has no tunnel.
    pub async fn dial(&self, node: &str, target: Target) -> Option<Result<BodyStream, Failure>> {
        let tunnel = self.nodes.lock().get(node)?.clone();
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.open(node, &tunnel, target)).await;
        let silent = |_| {
            let text = format!("the tunnel of node {node} did not answer within {} s", OPEN_TIMEOUT.as_secs());
            Failure::Io(io::Error::new(io::ErrorKind::TimedOut, text))
        };
        Some(opened.map_err(silent).flatten())
    }

    async fn open(&self, node: &str, tunnel: &Tunnel, target: Target) -> Result<BodyStream, Failure> {
        let broken = || Failure::Io(io::Error::other(format!("the tunnel of node {node} was closed")));
        let slot = tunnel.slots.clone().acquire_owned().await.map_err(|_| broken())?;
        let id = format!("{:032x}", rand::random::<u128>());
        let (answer, answered) = oneshot::channel();
        let _forget = Forget { tunnels: self, id: &id };
        self.waiting.lock().insert(id.clone(), Waiting { node: node.to_owned(), answer });
        let mut line = serde_json::to_vec(&Open { id: id.clone(), target }).map_err(|e| Failure::Io(e.into()))?;
        line.push(b'\n');
        tunnel.asks.send(line.into()).await.map_err(|_| broken())?;
        match answered.await.map_err(|_| broken())? {
            Ok(stream) => {
                tunnel.opened.fetch_add(1, Ordering::Relaxed);
                Ok(stream.holding(slot))
            }
            Err(Refusal { foreign: true, message }) => Err(Failure::Foreign(message)),
            Err(Refusal { message, .. }) => Err(Failure::Io(io::Error::other(message))),
        }
    }

    /// A new tunnel of a node takes over from an earlier one, whose streams go on.
    fn register(&self, node: &str, peer: Option<SocketAddr>) -> (u64, mpsc::Receiver<Bytes>) {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let (asks, asked) = mpsc::channel(QUEUE_OPENS);
        let mut nodes = self.nodes.lock();
        let slots = nodes.get(node).map_or_else(|| Arc::new(Semaphore::new(MAX_STREAMS)), |old| old.slots.clone());
        let since = time::rfc3339(time::now());
        let tunnel = Tunnel { generation, peer, since, asks, slots, opened: AtomicU64::new(0) };
        nodes.insert(node.to_owned(), Arc::new(tunnel));
        (generation, asked)
    }

    /// The connection of a tunnel has ended; a later one stays.
    fn unregister(&self, node: &str, generation: u64) {
        let mut nodes = self.nodes.lock();
        if nodes.get(node).is_some_and(|t| t.generation == generation) {
            nodes.remove(node);
        }
    }

    /// Whoever waits for this stream, if it was asked of this node.
    fn claim(&self, node: &str, id: &str) -> Option<oneshot::Sender<Result<BodyStream, Refusal>>> {
        let mut waiting = self.waiting.lock();
        if waiting.get(id)?.node != node {
            return None;
        }
        waiting.remove(id).map(|w| w.answer)
    }

    /// All tunnels by node.
    pub fn states(&self) -> Vec<State> {
        let nodes = self.nodes.lock();
        let state = |(node, tunnel): (&String, &Arc<Tunnel>)| State {
            node: node.clone(),
            address: tunnel.peer,
            since: tunnel.since.clone(),
            streams: MAX_STREAMS - tunnel.slots.available_permits(),
            opened: tunnel.opened.load(Ordering::Relaxed),
        };
        let mut states: Vec<State> = nodes.iter().map(state).collect();
        states.sort_by(|a, b| a.node.cmp(&b.node));
        states
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let states = self.states();
        let streams: usize = states.iter().map(|s| s.streams).sum();
        format!(
            "# HELP kedge_tunnels Agents connected by a tunnel.\n# TYPE kedge_tunnels gauge\nkedge_tunnels {}\n\
             # HELP kedge_tunnel_streams Streams open through tunnels.\n# TYPE kedge_tunnel_streams gauge\n\
             kedge_tunnel_streams {streams}\n",
            states.len()
        )
    }
}

/// Forgets a stream that nobody waits for any more.
struct Forget<'a> {
    tunnels: &'a Tunnels,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.tunnels.waiting.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Group;

    #[tokio::test]
    async fn a_full_tunnel_lets_nobody_through() {
        let tunnels = Arc::new(Tunnels::default());
        let (_, mut asked) = tunnels.register("far", None);
        let slots = tunnels.nodes.lock()["far"].slots.clone();
        let mut all = slots.acquire_many_owned(MAX_STREAMS as u32).await.unwrap();
        let group = Group::root();
        let (ended, mut end) = tokio::sync::mpsc::channel(1);
        let dialing = tunnels.clone();
        group.spawn("dial", async move {
            let dialed = dialing.dial("far", Target::Kubelet).await.map(|d| d.map(drop));
            let _ = ended.send(dialed).await;
        });
        tokio::task::yield_now().await;
        assert!(asked.try_recv().is_err() && tunnels.waiting.lock().is_empty(), "asked beyond the bound");
        // One stream ends: the next is asked for. Its waiter goes away: nothing is left of it.
        drop(all.split(1));
        let open: Open = serde_json::from_slice(&asked.recv().await.unwrap()).unwrap();
        assert_eq!(open.target, Target::Kubelet);
        let refusal = Refusal { foreign: false, message: "no".into() };
        assert!(tunnels.claim("other", &open.id).is_none(), "another node answers");
        assert!(tunnels.claim("far", &open.id).unwrap().send(Err(refusal)).is_ok(), "nobody waits");
        let dialed = end.recv().await.unwrap();
        assert!(matches!(dialed, Some(Err(Failure::Io(_)))), "{dialed:?}");
        assert!(tunnels.waiting.lock().is_empty());
        assert!(tunnels.dial("near", Target::Kubelet).await.is_none());
    }
}
