//! Sets and maps as libnftnl's objects.

use super::raw::{Key, RawElement, name};
use super::{Data, Element, Field, Set};
use crate::netproxy::net::Family;
use nftnl::nftnl_sys as sys;
use std::io;

/// A set as it is created. `id` is one that no other set of the transaction has.
pub fn define<'t>(table: &'t nftnl::Table, family: Family, set: &Set, id: u32) -> io::Result<nftnl::set::Set<'t, Key>> {
    let length = |fields: &[Field]| fields.iter().map(|f| f.bytes(family)).sum::<usize>() as u32;
    let display = |fields: &[Field]| fields.iter().fold(0, |whole, f| (whole << 6) | f.display(family));
    let mut flags = if set.data.is_empty() { 0 } else { libc::NFT_SET_MAP };
    if set.dynamic.is_some() {
        flags |= libc::NFT_SET_TIMEOUT | libc::NFT_SET_EVAL;
    }
    let mut made = nftnl::set::Set::new_named(&name(set.name)?, id, table, table.get_family());
    put(&mut made, sys::NFTNL_SET_FLAGS, flags as u32);
    put(&mut made, sys::NFTNL_SET_KEY_TYPE, display(set.key));
    put(&mut made, sys::NFTNL_SET_KEY_LEN, length(set.key));
    match set.data {
        [] => (),
        [Field::Verdict] => put(&mut made, sys::NFTNL_SET_DATA_TYPE, Field::Verdict.display(family)),
        fields => {
            put(&mut made, sys::NFTNL_SET_DATA_TYPE, display(fields));
            put(&mut made, sys::NFTNL_SET_DATA_LEN, length(fields));
        }
    }
    if let Some(size) = set.dynamic {
        put(&mut made, sys::NFTNL_SET_DESC_SIZE, size);
    }
    Ok(made)
}

/// Elements of a set that is there, or that the transaction has created. Those that are dropped go by key alone.
pub fn list<'t>(
    table: &'t nftnl::Table,
    set: &Set,
    elements: &[&Element],
    with_data: bool,
) -> io::Result<nftnl::set::Set<'t, Key>> {
    let mut made = nftnl::set::Set::new_named(&name(set.name)?, 0, table, table.get_family());
    // The name alone says which: by number, elements could get into another set.
    // SAFETY: the pointer is that of a live set.
    unsafe { sys::nftnl_set_unset(made.as_ptr().as_ptr(), sys::NFTNL_SET_ID as u16) };
    for element in elements {
        let key = RawElement::new(&element.key)?;
        let whole = match &element.data {
            Data::Value(value) if with_data => key.data(value)?,
            Data::Verdict(verdict) if with_data => key.verdict(verdict)?,
            _ => key,
        };
        whole.give(&mut made);
    }
    Ok(made)
}

fn put(set: &mut nftnl::set::Set<'_, Key>, attr: u32, value: u32) {
    // SAFETY: the pointer is that of a live set, which nobody else uses meanwhile.
    unsafe { sys::nftnl_set_set_u32(set.as_ptr().as_ptr(), attr as u16, value) };
}
