//! Checksums that a device would compute when it sends (ethtool, linux/ethtool.h).

use std::io;
use std::os::fd::AsRawFd;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Packets leave this device with their checksums computed: some network cards, and kernels before 5.7 after
/// translation, get those inside of VXLAN wrong. Fails on a kernel without ethtool, where nothing can be switched.
pub fn no_tx_checksum(name: &str) -> io::Result<()> {
    let mut value = Value { command: ETHTOOL_GTXCSUM, data: 0 };
    ask(name, &mut value)?;
    if value.data == 0 {
        return Ok(());
    }
    ask(name, &mut Value { command: ETHTOOL_STXCSUM, data: 0 })
}

fn ask(name: &str, value: &mut Value) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| std::net::UdpSocket::bind("[::1]:0"))?;
    // SAFETY: all zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface's name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the request names an interface and points to a value of the size its command says; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    nix::Error::result(result).map(drop).map_err(Into::into)
}
