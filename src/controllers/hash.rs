//! Short names from contents, as pods and ReplicaSets carry them.

/// Letters and digits that cannot form words (apimachinery's `rand.SafeEncodeString`).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// 32-bit FNV-1a, in the alphabet above.
pub fn short(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_fnv1a() {
        // FNV-1a of "" is 2166136261, of "a" 3826002220.
        let digits =
            |text: &str| text.bytes().map(|d| super::ALPHABET[usize::from(d) % 27] as char).collect::<String>();
        assert_eq!(super::short(b""), digits("2166136261"));
        assert_eq!(super::short(b"a"), digits("3826002220"));
    }
}
