//! The way to a node's network: its kubelet, its pods. One place for every stream and proxy, so that nobody else
//! knows whether the bytes go over the network or through the node's tunnel.

use crate::server::tunnel::{Failure, Tunnels};
use crate::wire::stream::BoxStream;
use crate::wire::tunnel::Target;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens byte streams to nodes and to what runs on them.
#[derive(Clone, Default)]
pub struct Dialer {
    tunnels: Arc<Tunnels>,
}

impl Dialer {
    pub fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    /// A stream to the kubelet of `node`; without a tunnel it is dialed where it reports to be.
    pub async fn kubelet(&self, node: &str, host: &str, port: u16) -> io::Result<BoxStream> {
        self.to(node, Some(Target::Kubelet), host, port).await
    }

    /// A stream to `host:port` on the network of `node` ("" where none is known).
    pub async fn dial(&self, node: &str, host: &str, port: u16) -> io::Result<BoxStream> {
        let target = host.parse().ok().map(|host| Target::Tcp { host, port });
        self.to(node, target, host, port).await
    }

    /// Through the tunnel if there is one; an address that is none of that node's is tried directly.
    async fn to(&self, node: &str, target: Option<Target>, host: &str, port: u16) -> io::Result<BoxStream> {
        let Some(target) = target else { return direct(host, port).await };
        match self.tunnels.dial(node, target).await {
            None => direct(host, port).await,
            Some(Ok(stream)) => Ok(Box::new(stream)),
            Some(Err(Failure::Foreign(why))) => {
                tracing::debug!(node, host, port, why, "not for the tunnel");
                direct(host, port).await
            }
            Some(Err(Failure::Io(error))) => Err(named(host, port, &error)),
        }
    }
}

async fn direct(host: &str, port: u16) -> io::Result<BoxStream> {
    let connect = TcpStream::connect((host, port));
    let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(timeout).flatten();
    let stream = stream.map_err(|e| named(host, port, &e))?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn named(host: &str, port: u16, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("dial tcp {host}:{port}: {error}"))
}
