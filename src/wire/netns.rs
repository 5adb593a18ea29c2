//! Connections made inside another network namespace. A thread of its own enters it and ends, so that no worker
//! thread of the runtime is ever left in the wrong namespace.

use crate::task::Group;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connect to a port on the loopback of the namespace at `path`: IPv4, then IPv6.
pub async fn connect(path: &Path, port: u16) -> io::Result<TcpStream> {
    let path = path.to_owned();
    let stream = Group::blocking(move || in_thread(path, port)).await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn in_thread(path: PathBuf, port: u16) -> io::Result<StdStream> {
    let namespace = File::open(&path)?;
    let work = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        let dial = |address: SocketAddr| StdStream::connect_timeout(&address, CONNECT_TIMEOUT);
        dial((Ipv4Addr::LOCALHOST, port).into()).or_else(|e| dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| e))
    };
    Group::scratch_thread(work).unwrap_or_else(|| Err(io::Error::other("the connecting thread panicked")))
}
