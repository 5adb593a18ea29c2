//! Netlink: messages as bytes, and a blocking socket that sends them and reads the kernel's answers.
//!
//! Knows no protocol: [`super::link`] (rtnetlink), [`super::nft`] (nftables) and [`super::conntrack`] build on it. The
//! few requests of the first and last are plain bytes, built here; nftables' transactions come from libnftnl and are
//! only sent and answered here. The format is that of netlink(7): a header, then attributes of length, type, value, each
//! padded to four bytes.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good, whichever thread uses it.

use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, sendto,
    setsockopt,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel builds dump replies of at most this size when the reader offers as much.
const RECEIVE_BYTES: usize = 256 * 1024;
/// Replies waiting in a socket's queue; a monitor that falls further behind gets `ENOBUFS`.
const RECEIVE_QUEUE_BYTES: usize = 4 * 1024 * 1024;

pub const NLA_NESTED: u16 = libc::NLA_F_NESTED as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const NLA_TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;

/// One or more messages being built.
#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    /// An attribute did not fit its 16 bit length; sending fails.
    too_long: bool,
}

impl Messages {
    /// Append one message; `body` writes what follows its header. `seq` comes back in the kernel's answer.
    pub fn message(&mut self, kind: u16, flags: i32, seq: u32, body: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// A transaction whose messages, begin and end marks among them, were made elsewhere. All get the number `seq`, and
    /// only the last before the end mark asks for an acknowledgement: the kernel queues all answers before anybody can
    /// read one, and an answer to each message of a large transaction would not fit.
    pub fn transaction<'a>(pages: impl IntoIterator<Item = &'a [u8]>, seq: u32) -> Self {
        let mut bytes = pages.into_iter().collect::<Vec<_>>().concat();
        let (mut last, mut before) = (None, None);
        let mut start = 0;
        while let Some(header) = bytes.get_mut(start..start + HEADER) {
            let length = u32_at(header, 0).unwrap_or_default() as usize;
            if length < HEADER {
                break;
            }
            let flags = u16_at(header, 6).unwrap_or_default() & !ACK;
            header[6..8].copy_from_slice(&flags.to_ne_bytes());
            header[8..12].copy_from_slice(&seq.to_ne_bytes());
            before = last.replace(start);
            start += length.next_multiple_of(4);
        }
        if let Some(start) = before {
            let flags = u16_at(&bytes, start + 6).unwrap_or_default() | ACK;
            bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        Messages { bytes, too_long: false }
    }

    /// A protocol's fixed header, padded.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.wrap(kind, |m| m.bytes.extend_from_slice(value))
    }

    /// A number in the host's order, as rtnetlink wants them.
    pub fn ne32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A string with its terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.wrap(kind, |m| {
            m.bytes.extend_from_slice(value.as_bytes());
            m.bytes.push(0);
        })
    }

    /// An attribute made of attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.wrap(kind | NLA_NESTED, body)
    }

    fn wrap(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A message received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// Port of the socket whose request caused this notification; 0 for the kernel.
    pub port: u32,
    pub body: &'a [u8],
}

/// The messages in one datagram; a damaged tail is left out.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let body = rest.get(HEADER..length)?;
        let message = Received {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            seq: u32_at(rest, 8)?,
            port: u32_at(rest, 12)?,
            body,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: type (without its flag bits) and value; a damaged tail is left out.
pub fn attrs(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub fn attr(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A string attribute without its terminating zero.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// A number in the host's order at an offset.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A blocking netlink socket.
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    port: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket in the network namespace of this thread.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        // Answers without a copy of the request, with the kernel's own words when it has some. Both only refine
        // messages, so an older kernel that refuses them is fine.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            let _ = switch_on(&fd, option);
        }
        Ok(Socket { fd, seq: 0, port, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Receive a group's notifications.
    pub fn join(&self, group: i32) -> io::Result<()> {
        // The greater queue needs CAP_NET_ADMIN in the namespace's owner; without it the default one serves.
        let _ = setsockopt(&self.fd, socket::sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES);
        set_option(&self.fd, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    pub fn set_nonblocking(&self) -> io::Result<()> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(&self.fd, FcntlArg::F_GETFL)?);
        fcntl(&self.fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// The port that notifications of our own requests carry.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// A sequence number not used before on this socket.
    pub fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    /// Send one request and wait until the kernel has done it.
    pub fn request(&mut self, kind: u16, flags: i32, body: impl FnOnce(&mut Messages)) -> io::Result<()> {
        let seq = self.next_seq();
        let mut messages = Messages::default();
        messages.message(kind, flags | libc::NLM_F_ACK, seq, body);
        self.send(&messages)?;
        self.answers(seq, |_| ())
    }

    /// Send one request for a list, or for one object, and hand every reply to `each`.
    pub fn query(
        &mut self,
        kind: u16,
        flags: i32,
        body: impl FnOnce(&mut Messages),
        mut each: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        let seq = self.next_seq();
        let mut messages = Messages::default();
        // A single object comes without an end mark, so ask for the acknowledgement that follows it.
        let end = if flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP { 0 } else { libc::NLM_F_ACK };
        messages.message(kind, flags | end, seq, body);
        self.send(&messages)?;
        self.answers(seq, &mut each)
    }

    /// Send messages that the caller reads the answers of.
    pub fn send(&self, messages: &Messages) -> io::Result<()> {
        if messages.too_long {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a netlink attribute is longer than 64 KiB"));
        }
        // The kernel copies a whole transaction at once and refuses what exceeds the send buffer.
        let wanted = messages.bytes.len() + 4096;
        if wanted > socket::getsockopt(&self.fd, socket::sockopt::SndBuf)? {
            setsockopt(&self.fd, socket::sockopt::SndBufForce, &wanted)?;
        }
        sendto(self.fd.as_raw_fd(), &messages.bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// Read until the request `seq` is answered in full. The first error the kernel reports is the result.
    pub fn answers(&mut self, seq: u32, mut each: impl FnMut(Received<'_>)) -> io::Result<()> {
        let mut failed = None;
        loop {
            let length = retry(|| recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()))?;
            for message in messages(&self.buffer[..length]) {
                let ours = message.seq == seq;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => match error_of(&message) {
                        Some(error) => {
                            failed.get_or_insert(error);
                        }
                        None if ours => return failed.map_or(Ok(()), Err),
                        None => (),
                    },
                    libc::NLMSG_DONE if ours => return error_of(&message).map_or(Ok(()), Err),
                    _ if ours => each(message),
                    _ => (),
                }
            }
            if let Some(error) = failed.take() {
                // The kernel queued everything before the send returned: what is still unread belongs to this request.
                self.drain()?;
                return Err(error);
            }
        }
    }

    /// Read what is there now, without waiting, and hand it to `each`. `ENOBUFS` means that notifications were lost.
    pub fn poll(&mut self, mut each: impl FnMut(Received<'_>)) -> io::Result<()> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => messages(&self.buffer[..length]).for_each(&mut each),
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(nix::Error::EINTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        self.poll(|_| ())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The error in an acknowledgement, with the kernel's explanation when it gave one.
fn error_of(message: &Received<'_>) -> Option<io::Error> {
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let code = u32_at(message.body, 0)? as i32;
    if code == 0 {
        return None;
    }
    let error = io::Error::from_raw_os_error(-code);
    let tlvs = message.body.get(4 + HEADER..).filter(|_| message.flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
    match attr(tlvs, NLMSGERR_ATTR_MSG) {
        Some(words) => Some(io::Error::new(error.kind(), Explained { words: text(words), error })),
        None => Some(error),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{error}: {words}")]
struct Explained {
    words: String,
    error: io::Error,
}

/// The system error number behind an error of this module.
pub fn errno(error: &io::Error) -> Option<i32> {
    let explained = error.get_ref().and_then(|e| e.downcast_ref::<Explained>());
    error.raw_os_error().or_else(|| explained.and_then(|e| e.error.raw_os_error()))
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => (),
            other => return Ok(other?),
        }
    }
}

fn switch_on(fd: &OwnedFd, option: i32) -> io::Result<()> {
    set_option(fd, option, 1)
}

fn set_option(fd: &OwnedFd, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which lives through the call; the descriptor is open.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const value).cast(), length) };
    nix::Error::result(result).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_and_reads_back() {
        let mut built = Messages::default();
        built.message(7, libc::NLM_F_ACK, 9, |m| {
            m.raw(&[1, 2]).text(1, "abc").nest(2, |m| {
                m.attr(3, &[1, 2, 3, 4]);
            });
        });
        let read: Vec<_> = messages(built.bytes()).collect();
        assert_eq!((read.len(), read[0].kind, read[0].seq), (1, 7, 9));
        let body = &read[0].body[4..];
        assert_eq!(text(attr(body, 1).unwrap()), "abc");
        assert_eq!(attr(attr(body, 2).unwrap(), 3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attrs(&body[..body.len() - 1]).count(), 1, "a cut attribute is left out");
        assert_eq!(messages(&built.bytes()[..20]).count(), 0, "a cut message is left out");
    }

    #[test]
    fn an_attribute_that_is_too_long_is_refused() {
        let mut built = Messages::default();
        built.message(7, 0, 1, |m| {
            m.attr(1, &vec![0; 70_000]);
        });
        let socket = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        assert_eq!(socket.send(&built).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
