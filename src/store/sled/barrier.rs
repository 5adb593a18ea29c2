//! Makes sled's waiting for the disk a real barrier.
//!
//! sled 0.34 follows each write of its log with `sync_file_range(2)`, takes it for durable, and builds on that: the
//! header of each segment tells up to where the log before it is on the disk, and a segment is used again once what
//! was in it is on the disk elsewhere. But that call neither empties the disk's cache nor writes metadata. A power
//! loss could then leave a header whose promise is not kept, and recovery gave an empty store or one that cannot be
//! read (shown by `tests/store_power.rs`; one barrier after each `flush` is not enough, as sled writes between
//! flushes, too). So this function takes the place of the C library's in the executable. sled is the only caller, and
//! [`proven`] tells whether it really calls this one.

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU64, Ordering};

static BARRIERS: AtomicU64 = AtomicU64::new(0);

/// Everything written to the file is on the disk when this returns 0.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: c_int, _offset: libc::off64_t, _bytes: libc::off64_t, _flags: c_uint) -> c_int {
    BARRIERS.fetch_add(1, Ordering::SeqCst);
    loop {
        // SAFETY: takes no pointers; a wrong descriptor is an error.
        let result = unsafe { libc::fdatasync(fd) };
        if result == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return result;
        }
    }
}

/// Run what makes sled write, and tell whether it passed a barrier.
pub fn proven<E>(write: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
    let before = BARRIERS.load(Ordering::SeqCst);
    write()?;
    Ok(BARRIERS.load(Ordering::SeqCst) > before)
}
