//! The way to a node's network: its kubelet, its pods. One function for every stream and proxy, so that nobody else
//! knows whether the bytes go over the network or through the node's tunnel.

use crate::wire::stream::BoxStream;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens byte streams to nodes and to what runs on them.
#[derive(Default)]
pub struct Dialer {}

impl Dialer {
    /// A stream to `host:port` on the network of `node` ("" where none is known).
    pub async fn dial(&self, node: &str, host: &str, port: u16) -> io::Result<BoxStream> {
        tracing::trace!(node, host, port, "dial");
        let connect = TcpStream::connect((host, port));
        let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(timeout).flatten();
        let stream = stream.map_err(|e| io::Error::new(e.kind(), format!("dial tcp {host}:{port}: {e}")))?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
