//! Bytes as keys and values of the store's entries in its files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((split, rest)) = input.split_first() else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(*split)));
    kedge::store::sled::entry_is_readable(key, value);
    kedge::store::log::frame_is_readable(input);
});
