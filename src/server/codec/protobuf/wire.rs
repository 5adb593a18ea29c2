//! The protobuf wire format: tags, varints, lengths.

/// The value of one field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Strings are UTF-8; what is not is replaced, as Go's JSON encoder would.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_varint(input: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for (i, byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(if input.len() < 10 { "unexpected EOF" } else { "proto: integer overflow" }.to_owned())
}

fn take<'a>(input: &mut &'a [u8], count: u64) -> Result<&'a [u8], String> {
    let count = usize::try_from(count).ok().filter(|n| *n <= input.len()).ok_or("unexpected EOF")?;
    let (head, tail) = input.split_at(count);
    *input = tail;
    Ok(head)
}

/// The fields of a message in the order they are written. Ends after the first error.
pub fn fields(mut input: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), String>> {
    let mut failed = false;
    std::iter::from_fn(move || {
        if input.is_empty() || failed {
            return None;
        }
        let field = next_field(&mut input);
        failed = field.is_err();
        Some(field)
    })
}

fn next_field<'a>(input: &mut &'a [u8]) -> Result<(u32, Value<'a>), String> {
    let tag = read_varint(input)?;
    let number = u32::try_from(tag >> 3).ok().filter(|n| *n != 0).ok_or("proto: illegal tag")?;
    let value = match tag & 7 {
        0 => Value::Varint(read_varint(input)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(input, 8)?.try_into().unwrap_or_default())),
        2 => {
            let length = read_varint(input)?;
            Value::Bytes(take(input, length)?)
        }
        5 => Value::Fixed32(u32::from_le_bytes(take(input, 4)?.try_into().unwrap_or_default())),
        other => return Err(format!("proto: illegal wireType {other}")),
    };
    Ok((number, value))
}

/// The varints of a repeated field, packed or not.
pub fn varints(value: Value<'_>) -> Result<Vec<u64>, String> {
    match value {
        Value::Varint(n) => Ok(vec![n]),
        Value::Bytes(mut packed) => {
            let mut all = Vec::new();
            while !packed.is_empty() {
                all.push(read_varint(&mut packed)?);
            }
            Ok(all)
        }
        other => Err(format!("proto: wrong wireType for a repeated integer: {other:?}")),
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, number: u32, wire_type: u64) {
    write_varint(out, u64::from(number) << 3 | wire_type);
}

pub fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
    tag(out, number, 0);
    write_varint(out, value);
}

pub fn fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    tag(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    tag(out, number, 2);
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field that is a message: `write` writes it, the length is put before it afterwards.
pub fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, number, 2);
    // Most messages are shorter than 128 bytes: leave one byte for the length, move the rest if it is more.
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    write_varint(&mut prefix, length as u64);
    out.splice(at..at + 1, prefix);
}
