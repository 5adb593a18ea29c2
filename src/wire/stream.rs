//! Any byte stream, whatever carries it: a socket, TLS, a stream of a tunnel.

use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A byte stream of a kind that nobody needs to know.
pub type BoxStream = Box<dyn Stream>;
