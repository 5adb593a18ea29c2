//! What nftnl has no safe wrapper for: expressions and set elements, each owned until it is given to its rule or set.
//!
//! libnftnl copies values into fields of fixed size without looking at their length, and messages into a buffer of
//! fixed size: so lengths are checked here, before it sees them.

use super::{Register, Verdict};
use nftnl::expr::Expression;
use nftnl::nftnl_sys as sys;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Bytes of a value in the kernel's registers, and in libnftnl's objects.
const VALUE_BYTES: usize = libc::NFT_DATA_VALUE_MAXLEN as usize;
/// `NFT_NAME_MAXLEN` without the terminating zero.
const NAME_BYTES: usize = 255;
/// The first 32 bit register's number.
const FIRST_REGISTER: u32 = libc::NFT_REG32_00 as u32;

/// A name as libnftnl takes it; one that the kernel would refuse is refused here.
pub fn name(text: &str) -> io::Result<CString> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("no name for nftables: {text:?}"));
    if text.len() > NAME_BYTES {
        return Err(invalid());
    }
    CString::new(text).map_err(|_| invalid())
}

fn checked(value: &[u8]) -> io::Result<(*const libc::c_void, u32)> {
    if value.len() > VALUE_BYTES {
        let text = format!("a value of {} bytes is too long for nftables", value.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok((value.as_ptr().cast(), value.len() as u32))
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
}

/// An expression that belongs to no rule yet.
pub struct RawExpr(NonNull<sys::nftnl_expr>);

impl RawExpr {
    /// An expression by the kernel's name for its kind.
    pub fn new(kind: &CStr) -> io::Result<Self> {
        // SAFETY: `kind` ends with a zero; libnftnl returns null or an object that is then ours.
        let made = unsafe { sys::nftnl_expr_alloc(kind.as_ptr()) };
        let unknown = || io::Error::new(io::ErrorKind::Unsupported, format!("libnftnl does not know {kind:?}"));
        NonNull::new(made).map(RawExpr).ok_or_else(unknown)
    }

    pub fn byte(self, attr: u32, value: u8) -> Self {
        // SAFETY: the pointer is that of a live expression; a number that its kind does not have is ignored.
        unsafe { sys::nftnl_expr_set_u8(self.0.as_ptr(), attr as u16, value) };
        self
    }

    pub fn number(self, attr: u32, value: u32) -> Self {
        // SAFETY: as in `byte`.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attr as u16, value) };
        self
    }

    pub fn long(self, attr: u32, value: u64) -> Self {
        // SAFETY: as in `byte`.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), attr as u16, value) };
        self
    }

    pub fn register(self, attr: u32, register: Register) -> Self {
        self.number(attr, FIRST_REGISTER + u32::from(register))
    }

    pub fn name(self, attr: u32, value: &str) -> io::Result<Self> {
        let value = name(value)?;
        // SAFETY: the pointer is that of a live expression; `value` ends with a zero and is copied.
        done(unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), attr as u16, value.as_ptr()) })?;
        Ok(self)
    }

    pub fn value(self, attr: u32, value: &[u8]) -> io::Result<Self> {
        let (start, length) = checked(value)?;
        // SAFETY: the pointer is that of a live expression; start and length are those of `value`, which is copied and
        // was checked to fit.
        done(unsafe { sys::nftnl_expr_set(self.0.as_ptr(), attr as u16, start, length) })?;
        Ok(self)
    }

    /// Make it the rule's last.
    pub fn give(self, rule: &mut nftnl::Rule<'_>) {
        rule.add_expr(&Given(ManuallyDrop::new(self).0));
    }
}

impl Drop for RawExpr {
    fn drop(&mut self) {
        // SAFETY: the expression is live and belongs to nobody else: giving it away forgets it.
        unsafe { sys::nftnl_expr_free(self.0.as_ptr()) };
    }
}

/// An expression on its way into a rule, which frees it. Made in [`RawExpr::give`] only, and used once there.
struct Given(NonNull<sys::nftnl_expr>);

impl Expression for Given {
    fn to_expr(&self, _: &nftnl::Rule<'_>) -> NonNull<sys::nftnl_expr> {
        self.0
    }
}

/// Keys of our sets are bytes: what nftnl would know by a Rust type, [`super::set`] says for each set.
pub enum Key {}

impl nftnl::set::SetKey for Key {
    const TYPE: u32 = 0;
    const LEN: u32 = 0;

    fn data(&self) -> Box<[u8]> {
        match *self {}
    }
}

/// An element that belongs to no set yet.
pub struct RawElement(NonNull<sys::nftnl_set_elem>);

impl RawElement {
    pub fn new(key: &[u8]) -> io::Result<Self> {
        // SAFETY: no conditions; libnftnl returns null or an object that is then ours.
        let made = unsafe { sys::nftnl_set_elem_alloc() };
        NonNull::new(made).map(RawElement).ok_or(io::ErrorKind::OutOfMemory)?.value(sys::NFTNL_SET_ELEM_KEY, key)
    }

    pub fn data(self, value: &[u8]) -> io::Result<Self> {
        self.value(sys::NFTNL_SET_ELEM_DATA, value)
    }

    pub fn verdict(self, verdict: &Verdict) -> io::Result<Self> {
        let (code, chain) = match verdict {
            Verdict::Accept => (libc::NF_ACCEPT, None),
            Verdict::Drop => (libc::NF_DROP, None),
            Verdict::Return => (libc::NFT_RETURN, None),
            Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        };
        // SAFETY: the pointer is that of a live element.
        unsafe { sys::nftnl_set_elem_set_u32(self.0.as_ptr(), sys::NFTNL_SET_ELEM_VERDICT as u16, code as u32) };
        if let Some(chain) = chain {
            let chain = name(chain)?;
            let attr = sys::NFTNL_SET_ELEM_CHAIN as u16;
            // SAFETY: the pointer is that of a live element; `chain` ends with a zero and is copied.
            done(unsafe { sys::nftnl_set_elem_set_str(self.0.as_ptr(), attr, chain.as_ptr()) })?;
        }
        Ok(self)
    }

    fn value(self, attr: u32, value: &[u8]) -> io::Result<Self> {
        let (start, length) = checked(value)?;
        // SAFETY: the pointer is that of a live element; start and length are those of `value`, which is copied and was
        // checked to fit.
        done(unsafe { sys::nftnl_set_elem_set(self.0.as_ptr(), attr as u16, start, length) })?;
        Ok(self)
    }

    /// Make it the set's last.
    pub fn give(self, set: &mut nftnl::set::Set<'_, Key>) {
        let element = ManuallyDrop::new(self);
        // SAFETY: set and element are live; the set frees the element from now on, and we have forgotten it.
        unsafe { sys::nftnl_set_elem_add(set.as_ptr().as_ptr(), element.0.as_ptr()) };
    }
}

impl Drop for RawElement {
    fn drop(&mut self) {
        // SAFETY: the element is live and belongs to nobody else: giving it away forgets it.
        unsafe { sys::nftnl_set_elem_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, fits) in [("a", true), (&"a".repeat(255), true), (&"a".repeat(256), false), ("a\0b", false)] {
            assert_eq!(name(text).is_ok(), fits, "{text:?}");
            assert_eq!(RawElement::new(&[1]).unwrap().verdict(&Verdict::Goto(text.into())).is_ok(), fits, "{text:?}");
        }
        for (length, fits) in [(64, true), (65, false)] {
            let value = vec![0; length];
            let expr = RawExpr::new(c"cmp").unwrap().value(sys::NFTNL_EXPR_CMP_DATA, &value);
            assert_eq!((expr.is_ok(), RawElement::new(&value).is_ok()), (fits, fits), "{length}");
        }
        assert!(RawExpr::new(c"no such thing").is_err());
    }
}
