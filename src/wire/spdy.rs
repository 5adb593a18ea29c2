//! SPDY/3.1 sessions as Kubernetes uses them: streams with headers, data and half-close, for exec, attach and
//! port-forward (draft-mbelshe-httpbis-spdy-00; no crate speaks it).
//!
//! Like upstream's implementation there is no window-based flow control: a stream whose reader is slow holds the
//! session's reader, and with it the peer's socket. [`STREAM_BUFFER_FRAMES`] is the bound.

use crate::task::Group;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// Data frames waiting in one stream; when full, the session waits for the stream's reader.
const STREAM_BUFFER_FRAMES: usize = 16;

/// Frames waiting to be written; when full, writers wait.
const WRITE_BUFFER_FRAMES: usize = 32;

/// Streams the peer has opened that nobody has taken yet; when full, the session waits.
const ACCEPT_BUFFER_STREAMS: usize = 32;

/// Streams open at once in one session; more are refused by RST_STREAM.
const MAX_STREAMS: usize = 1024;

/// Larger frames end the session.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// A name/value block unpacked may not be larger.
const MAX_HEADER_BYTES: usize = 256 * 1024;

/// The preset dictionary of name/value blocks (SPDY/3, section 2.6.10.1).
const DICTIONARY: &[u8] = include_bytes!("spdy.dict");

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FLAG_FIN: u8 = 1;
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// Names are lower case on the wire.
pub type Headers = Vec<(String, String)>;

/// One value of a header.
pub fn header<'a>(headers: &'a Headers, name: &str) -> &'a str {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// One stream: its headers, what the peer sends, what we send.
pub struct Stream {
    pub headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
}

/// What the peer sends on a stream. `None`: half-closed by the peer, reset, or the session ended.
pub struct Reader {
    data: mpsc::Receiver<Bytes>,
}

impl Reader {
    pub async fn next(&mut self) -> Option<Bytes> {
        self.data.recv().await
    }
}

/// Our side of a stream. Dropped without [`Writer::finish`] it resets the stream.
pub struct Writer {
    id: u32,
    frames: mpsc::Sender<Frame>,
    shared: Arc<Shared>,
    finished: bool,
}

impl Writer {
    /// Fails when the session has ended.
    pub async fn write(&self, data: Bytes) -> io::Result<()> {
        self.send(Frame::Data { id: self.id, data, fin: false }).await
    }

    /// Half-close: nothing more comes from us.
    pub async fn finish(mut self) -> io::Result<()> {
        self.finished = true;
        self.send(Frame::Data { id: self.id, data: Bytes::new(), fin: true }).await
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        self.frames.send(frame).await.map_err(|_| ended())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.streams.lock().remove(&self.id);
            // A full queue means that the session is stuck; its end ends this stream as well.
            let _ = self.frames.try_send(Frame::Reset { id: self.id, status: CANCEL });
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the SPDY session has ended")
}

enum Frame {
    Open { id: u32, headers: Headers },
    Reply { id: u32 },
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Pong { id: u32 },
}

struct Open {
    data: mpsc::Sender<Bytes>,
    replied: Option<oneshot::Sender<()>>,
}

struct Shared {
    streams: Mutex<HashMap<u32, Open>>,
    next_id: AtomicU32,
    role: Role,
}

/// A session over any byte stream. Dropping it and all its streams ends it.
pub struct Session {
    frames: mpsc::Sender<Frame>,
    shared: Arc<Shared>,
}

/// Streams opened by the peer. `None`: the session has ended.
pub struct Incoming {
    streams: mpsc::Receiver<Stream>,
}

impl Incoming {
    pub async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

impl Session {
    pub fn start<IO>(io: IO, role: Role, group: &Group) -> (Session, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (frames, outgoing) = mpsc::channel(WRITE_BUFFER_FRAMES);
        let (accepted, streams) = mpsc::channel(ACCEPT_BUFFER_STREAMS);
        let first = if role == Role::Client { 1 } else { 2 };
        let shared = Arc::new(Shared { streams: Mutex::default(), next_id: AtomicU32::new(first), role });
        // The reader must not keep the writer alive: the session ends when its last user is gone.
        let reader = Receiver { frames: frames.downgrade(), shared: shared.clone(), accepted };
        group.spawn("spdy-write", async move {
            if let Err(error) = write_frames(write, outgoing).await {
                debug!(%error, "SPDY session: writing ended");
            }
        });
        group.spawn("spdy-read", async move {
            let shared = reader.shared.clone();
            if let Err(error) = reader.run(read).await {
                debug!(%error, "SPDY session: reading ended");
            }
            shared.streams.lock().clear();
        });
        (Session { frames, shared }, Incoming { streams })
    }

    /// Open a stream and wait for the peer's SYN_REPLY.
    pub async fn open(&self, headers: &[(&str, &str)]) -> io::Result<Stream> {
        let id = self.shared.next_id.fetch_add(2, Ordering::Relaxed);
        let (replied, reply) = oneshot::channel();
        let (data, reader) = mpsc::channel(STREAM_BUFFER_FRAMES);
        self.shared.streams.lock().insert(id, Open { data, replied: Some(replied) });
        let headers: Headers = headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), (*v).to_owned())).collect();
        let writer = Writer { id, frames: self.frames.clone(), shared: self.shared.clone(), finished: false };
        writer.send(Frame::Open { id, headers: headers.clone() }).await?;
        reply.await.map_err(|_| io::Error::new(io::ErrorKind::ConnectionReset, "the peer refused the stream"))?;
        Ok(Stream { headers, reader: Reader { data: reader }, writer })
    }
}

async fn write_frames<W: AsyncWrite>(write: W, mut outgoing: mpsc::Receiver<Frame>) -> io::Result<()> {
    tokio::pin!(write);
    let mut compress = Compress::new(Compression::fast(), true);
    compress.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
    while let Some(frame) = outgoing.recv().await {
        let mut out = BytesMut::new();
        let mut body = Bytes::new();
        match frame {
            Frame::Open { id, headers } => {
                let block = pack(&mut compress, &headers)?;
                control(&mut out, SYN_STREAM, block.len() + 10);
                out.put_u32(id);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(&block);
            }
            Frame::Reply { id } => {
                let block = pack(&mut compress, &Headers::new())?;
                control(&mut out, SYN_REPLY, block.len() + 4);
                out.put_u32(id);
                out.extend_from_slice(&block);
            }
            Frame::Data { id, data, fin } => {
                out.put_u32(id & 0x7fff_ffff);
                out.put_u32(u32::from(if fin { FLAG_FIN } else { 0 }) << 24 | data.len() as u32);
                body = data;
            }
            Frame::Reset { id, status } => {
                control(&mut out, RST_STREAM, 8);
                out.put_u32(id);
                out.put_u32(status);
            }
            Frame::Pong { id } => {
                control(&mut out, PING, 4);
                out.put_u32(id);
            }
        }
        write.write_all(&out).await?;
        write.write_all(&body).await?;
        if outgoing.is_empty() {
            write.flush().await?;
        }
    }
    write.shutdown().await
}

fn control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u32(length as u32);
}

/// A name/value block, compressed in the session's one stream.
fn pack(compress: &mut Compress, headers: &Headers) -> io::Result<Vec<u8>> {
    let mut plain = BytesMut::new();
    plain.put_u32(headers.len() as u32);
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.put_u32(text.len() as u32);
        plain.extend_from_slice(text.as_bytes());
    }
    let mut out = Vec::with_capacity(plain.len() + 64);
    let start = compress.total_in();
    loop {
        out.reserve(256);
        let rest = &plain[(compress.total_in() - start) as usize..];
        let had = out.capacity();
        compress.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        let consumed = (compress.total_in() - start) as usize == plain.len();
        if consumed && out.len() < had {
            return Ok(out);
        }
    }
}

struct Receiver {
    frames: mpsc::WeakSender<Frame>,
    shared: Arc<Shared>,
    accepted: mpsc::Sender<Stream>,
}

impl Receiver {
    async fn run<R: AsyncRead>(self, read: R) -> io::Result<()> {
        tokio::pin!(read);
        let mut unpack = Unpack::new();
        loop {
            let mut head = [0u8; 8];
            match read.read_exact(&mut head).await {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            }
            let mut head = &head[..];
            let (word, second) = (head.get_u32(), head.get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if length > MAX_FRAME_BYTES {
                return Err(bad("a frame is too large"));
            }
            let mut body = vec![0u8; length];
            read.read_exact(&mut body).await?;
            if word & 0x8000_0000 == 0 {
                self.data(word, flags, body.into()).await;
            } else if !self.control(word as u16, flags, body.into(), &mut unpack).await? {
                return Ok(());
            }
        }
    }

    async fn data(&self, id: u32, flags: u8, data: Bytes) {
        let sender = self.shared.streams.lock().get(&id).map(|s| s.data.clone());
        if let Some(sender) = sender
            && !data.is_empty()
        {
            // The reader may be gone already: then the data is for nobody.
            let _ = sender.send(data).await;
        }
        if flags & FLAG_FIN != 0 {
            self.shared.streams.lock().remove(&id);
        }
    }

    /// One control frame; false ends the session.
    async fn control(&self, kind: u16, flags: u8, mut body: Bytes, unpack: &mut Unpack) -> io::Result<bool> {
        match kind {
            SYN_STREAM => {
                need(&body, 10)?;
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                let headers = unpack.headers(&body)?;
                return Ok(self.accept(id, headers, flags).await);
            }
            SYN_REPLY => {
                need(&body, 4)?;
                let id = body.get_u32() & 0x7fff_ffff;
                unpack.headers(&body)?;
                let reply = self.shared.streams.lock().get_mut(&id).and_then(|s| s.replied.take());
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
                if flags & FLAG_FIN != 0 {
                    self.shared.streams.lock().remove(&id);
                }
            }
            RST_STREAM => {
                need(&body, 8)?;
                self.shared.streams.lock().remove(&(body.get_u32() & 0x7fff_ffff));
            }
            PING => {
                need(&body, 4)?;
                let id = body.get_u32();
                let ours = (id % 2 == 1) == (self.shared.role == Role::Client);
                if !ours {
                    self.send(Frame::Pong { id }).await;
                }
            }
            GOAWAY => return Ok(false),
            // HEADERS say nothing to us, but share the compression stream.
            HEADERS => {
                need(&body, 4)?;
                body.advance(4);
                unpack.headers(&body)?;
            }
            // SETTINGS and WINDOW_UPDATE say nothing to us.
            _ => {}
        }
        Ok(true)
    }

    async fn accept(&self, id: u32, headers: Headers, flags: u8) -> bool {
        let Some(frames) = self.frames.upgrade() else { return false };
        if self.shared.streams.lock().len() >= MAX_STREAMS {
            return frames.send(Frame::Reset { id, status: REFUSED_STREAM }).await.is_ok();
        }
        let (data, reader) = mpsc::channel(STREAM_BUFFER_FRAMES);
        if flags & FLAG_FIN == 0 {
            self.shared.streams.lock().insert(id, Open { data, replied: None });
        }
        if frames.send(Frame::Reply { id }).await.is_err() {
            return false;
        }
        let writer = Writer { id, frames, shared: self.shared.clone(), finished: false };
        self.accepted.send(Stream { headers, reader: Reader { data: reader }, writer }).await.is_ok()
    }

    async fn send(&self, frame: Frame) {
        if let Some(frames) = self.frames.upgrade() {
            let _ = frames.send(frame).await;
        }
    }
}

fn need(body: &Bytes, length: usize) -> io::Result<()> {
    if body.len() < length { Err(bad("a control frame is too short")) } else { Ok(()) }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {what}"))
}

/// The peer's name/value blocks: one compression stream for the whole session.
struct Unpack(Decompress);

impl Unpack {
    fn new() -> Self {
        Unpack(Decompress::new(true))
    }

    fn headers(&mut self, block: &[u8]) -> io::Result<Headers> {
        let plain = self.inflate(block)?;
        let mut rest = &plain[..];
        let count = take_u32(&mut rest)?;
        let mut headers = Headers::new();
        for _ in 0..count {
            headers.push((take_text(&mut rest)?, take_text(&mut rest)?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(512);
        let start = self.0.total_in();
        loop {
            let used = (self.0.total_in() - start) as usize;
            out.reserve(512);
            let room = out.capacity();
            match self.0.decompress_vec(&block[used..], &mut out, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
                    continue;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
            if out.len() > MAX_HEADER_BYTES {
                return Err(bad("a header block is too large"));
            }
            if (self.0.total_in() - start) as usize == block.len() && out.len() < room {
                return Ok(out);
            }
        }
    }
}

fn take_u32(rest: &mut &[u8]) -> io::Result<u32> {
    if rest.len() < 4 {
        return Err(bad("a header block is cut short"));
    }
    Ok(rest.get_u32())
}

fn take_text(rest: &mut &[u8]) -> io::Result<String> {
    let length = take_u32(rest)? as usize;
    if rest.len() < length {
        return Err(bad("a header block is cut short"));
    }
    let (text, left) = rest.split_at(length);
    *rest = left;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_headers_data_and_half_close() {
        let group = Group::root();
        let (a, b) = tokio::io::duplex(1000);
        let (client, _none) = Session::start(a, Role::Client, &group);
        let (_server, mut incoming) = Session::start(b, Role::Server, &group);
        for round in 0..5 {
            let port = round.to_string();
            let headers = [("streamType", "data"), ("port", port.as_str())];
            let (opened, accepted) = tokio::join!(client.open(&headers), incoming.next());
            let (mut ours, mut theirs) = (opened.expect("opened"), accepted.expect("accepted"));
            assert_eq!(
                (header(&theirs.headers, "streamtype"), header(&theirs.headers, "PORT")),
                ("data", port.as_str())
            );
            let big = Bytes::from(vec![round as u8; 100_000]);
            let sent = big.clone();
            let (_, received) = tokio::join!(
                async {
                    ours.writer.write(sent).await.expect("write");
                    ours.writer.finish().await.expect("finish");
                },
                async {
                    let mut all = Vec::new();
                    while let Some(part) = theirs.reader.next().await {
                        all.extend_from_slice(&part);
                    }
                    all
                }
            );
            assert_eq!(received, big);
            theirs.writer.write(Bytes::from_static(b"answer")).await.expect("the other half is open");
            theirs.writer.finish().await.expect("finish");
            assert_eq!(ours.reader.next().await.as_deref(), Some(&b"answer"[..]));
            assert_eq!(ours.reader.next().await, None);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_its_streams() {
        let group = Group::root();
        let (a, b) = tokio::io::duplex(1000);
        let (client, _none) = Session::start(a, Role::Client, &group);
        let (server, mut incoming) = Session::start(b, Role::Server, &group);
        let (opened, accepted) = tokio::join!(client.open(&[]), incoming.next());
        let mut stream = opened.expect("opened");
        drop((accepted, server, incoming));
        assert_eq!(stream.reader.next().await, None);
    }

    #[tokio::test]
    async fn garbage_ends_the_session() {
        let group = Group::root();
        let (a, mut b) = tokio::io::duplex(1000);
        let (_server, mut incoming) = Session::start(a, Role::Server, &group);
        b.write_all(&[0x80, 3, 0, 1, 0, 0, 0, 4, 1, 2, 3, 4]).await.expect("write");
        assert!(incoming.next().await.is_none());
    }
}
