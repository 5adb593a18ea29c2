//! Generic netlink: families of messages that the kernel numbers when their module loads (linux/genetlink.h).

use super::netlink::{Messages, Received, Socket, attr, errno};
use nix::sys::socket::SockProtocol;
use std::io;

const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// One family, and a socket to speak it.
pub struct Family {
    socket: Socket,
    id: u16,
    version: u8,
}

impl Family {
    /// `NotFound` when the kernel does not have it.
    pub fn open(name: &str, version: u8) -> io::Result<Self> {
        let mut socket = Socket::open(SockProtocol::NetlinkGeneric)?;
        let mut id = None;
        let body = |m: &mut Messages| {
            m.raw(&header(CTRL_CMD_GETFAMILY, 1)).text(CTRL_ATTR_FAMILY_NAME, name);
        };
        let each = |m: Received<'_>| {
            let value = attr(m.body.get(4..).unwrap_or_default(), CTRL_ATTR_FAMILY_ID);
            id = value.and_then(|v| v.try_into().ok()).map(u16::from_ne_bytes);
        };
        match socket.query(libc::GENL_ID_CTRL as u16, 0, body, each) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => (),
            other => other?,
        }
        let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no {name}")))?;
        Ok(Family { socket, id, version })
    }

    pub fn request(&mut self, command: u8, body: impl FnOnce(&mut Messages)) -> io::Result<()> {
        let header = header(command, self.version);
        self.socket.request(self.id, 0, |m| body(m.raw(&header)))
    }

    pub fn query(
        &mut self,
        command: u8,
        flags: i32,
        body: impl FnOnce(&mut Messages),
        each: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        let header = header(command, self.version);
        self.socket.query(self.id, flags, |m| body(m.raw(&header)), each)
    }
}

/// `struct genlmsghdr`
fn header(command: u8, version: u8) -> [u8; 4] {
    [command, version, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_found_by_name() {
        assert_eq!(Family::open("nlctrl", 2).unwrap().id, libc::GENL_ID_CTRL as u16);
        assert_eq!(Family::open("kedge-has-none", 1).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }
}
