//! Kernel settings below `/proc/sys/net`.

use std::io;

/// Write a setting (`ipv4/ip_forward`), unless it has that value already: on a read-only `/proc/sys` a value that is
/// right needs no write.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value)
}
