//! Sockets between agents and the server.

use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes that nobody acknowledges for so long end the connection: a link that is cut is found as soon as HTTP/2's
/// pings would, also while data wait.
const UNACKNOWLEDGED: Duration = Duration::from_secs(45);

/// Small messages at once, dead peers noticed.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, TcpUserTimeout, &(UNACKNOWLEDGED.as_millis() as u32))?;
    Ok(())
}
