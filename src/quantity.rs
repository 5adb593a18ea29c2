//! Quantities: `100m`, `1Gi`, `1e3` (upstream's `resource.Quantity`: exact decimal, never finer than nano).
//!
//! Everything is kept in 10^-9 units of an `i128`: far more than the 2^63-1 units upstream caps large values to.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

/// How a quantity is printed, from how it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `1e3`
    DecimalExponent,
    /// `1Gi`
    BinarySi,
    /// `1G`, `100m`
    #[default]
    DecimalSi,
}

/// A quantity. Compares by value, whatever the notation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    /// In units of 10^-9.
    nanos: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
const NANO_PER_MILLI: i128 = 1_000_000;

/// The largest magnitude with a binary suffix: upstream cuts to 2^63-1 units.
const MAX_BINARY_NANOS: i128 = i64::MAX as i128 * NANO;

/// The largest magnitude at all (upstream has no limit here): so small that a sum of two still fits. Sums saturate.
const MAX_NANOS: i128 = i128::MAX / 32;

/// No accepted number is longer; what is longer has more digits than the range and the precision together.
const MAX_DIGITS: usize = 256;

/// Why a text is no quantity; `Display` is upstream's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    Malformed,
    Suffix,
}

impl Quantity {
    /// So many whole units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(units) * NANO, format }
    }

    /// So many thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(milli) * NANO_PER_MILLI, format }
    }

    /// Whole units, rounded up (away from zero, as upstream); limited to the range of i64.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// Thousandths, rounded up (away from zero, as upstream); limited to the range of i64.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO_PER_MILLI)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = away_from_zero(self.nanos, unit);
        rounded.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Rounded up to whole thousandths: what upstream's defaulting does to every resource list.
    pub fn round_up_milli(self) -> Self {
        Quantity { nanos: away_from_zero(self.nanos, NANO_PER_MILLI).saturating_mul(NANO_PER_MILLI), ..self }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }
}

/// `n / unit`, rounded away from zero.
fn away_from_zero(n: i128, unit: i128) -> i128 {
    n / unit + (n % unit).signum()
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    /// The sum in the left side's notation, or the right's where the left is zero. Saturates.
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: self.nanos.saturating_neg(), ..self }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::default(), Add::add)
    }
}

/// What a suffix means: base and exponent, and how such quantities are printed.
fn suffix(text: &str) -> Option<(u32, i32, Format)> {
    let (base, exponent, format) = match text {
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "" => (10, 0, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        _ => {
            let digits = text.strip_prefix(['e', 'E'])?;
            (10, digits.parse::<i32>().ok()?, Format::DecimalExponent)
        }
    };
    Some((base, exponent, format))
}

/// A text taken apart.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    base: u32,
    exponent: i32,
    format: Format,
}

impl<'a> Parts<'a> {
    /// Upstream's grammar: a sign, digits with at most one point, a suffix.
    fn of(text: &'a str) -> Result<Self, ParseError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseError::Malformed),
        };
        let split = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, unit) = unsigned.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if number.is_empty() || fraction.contains('.') || number.len() > MAX_DIGITS {
            return Err(ParseError::Malformed);
        }
        let (base, exponent, format) = suffix(unit).ok_or(ParseError::Suffix)?;
        Ok(Parts { negative, whole, fraction, base, exponent, format })
    }

    /// Whether upstream keeps the text as it was written: it is short, and looks canonical to a quick glance.
    fn is_kept(&self) -> bool {
        let digits = self.whole.len() + self.fraction.len();
        if self.base == 2 {
            let room = 14 - self.whole.len() as i32 - self.exponent * 3 / 10;
            let number: u64 = self.whole.parse().unwrap_or(0);
            return self.fraction.is_empty() && room >= 0 && number & 7 != 0;
        }
        let scale = i64::from(self.exponent) - self.fraction.len() as i64;
        let last_zeros = self.whole.bytes().chain(self.fraction.bytes()).rev().take_while(|b| *b == b'0').count();
        let first = self.whole.bytes().chain(self.fraction.bytes()).next();
        digits <= 18 && (-9..).contains(&scale) && scale % 3 == 0 && last_zeros < 3 && first.is_some_and(|b| b != b'0')
    }
}

/// The text upstream's API gives back for this one: most get their canonical form, what looks canonical is kept.
pub fn normalize(text: &str) -> Result<String, ParseError> {
    let text = text.trim();
    let quantity: Quantity = text.parse()?;
    Ok(if Parts::of(text)?.is_kept() { text.to_owned() } else { quantity.to_string() })
}

impl FromStr for Quantity {
    type Err = ParseError;

    /// Finer than nano is rounded away from zero; with a binary suffix, beyond 2^63-1 is cut.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let Parts { negative, whole, fraction, base, exponent, format } = Parts::of(text)?;
        let magnitude = magnitude(whole, fraction, base, exponent);
        // As upstream: a fraction of a unit is not printed with binary suffixes.
        let format = if magnitude < NANO && format == Format::BinarySi { Format::DecimalSi } else { format };
        Ok(Quantity { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

/// `whole.fraction * base^exponent` in nanos, rounded up and cut to the range. The texts are ASCII digits.
fn magnitude(whole: &str, fraction: &str, base: u32, exponent: i32) -> i128 {
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let mut place = 9 - fraction.len() as i64;
    match base {
        2 => (0..exponent / 10).for_each(|_| times_1024(&mut digits)),
        _ => place += i64::from(exponent),
    }
    let kept = digits.len().saturating_sub(usize::try_from(-place).unwrap_or(0));
    let most = if base == 2 { MAX_BINARY_NANOS } else { MAX_NANOS };
    let cut = |n: i128| n.min(most);
    let mut total = digits[..kept].iter().fold(0, |sum: i128, d| cut(sum * 10 + i128::from(*d)));
    for _ in 0..place.max(0) {
        if total == 0 || total == most {
            break;
        }
        total = cut(total * 10);
    }
    cut(total + i128::from(digits[kept..].iter().any(|d| *d != 0)))
}

/// Decimal digits, highest first, times 1024.
fn times_1024(digits: &mut Vec<u8>) {
    let mut carry = 0u32;
    for digit in digits.iter_mut().rev() {
        let product = u32::from(*digit) * 1024 + carry;
        *digit = (product % 10) as u8;
        carry = product / 10;
    }
    while carry > 0 {
        digits.insert(0, (carry % 10) as u8);
        carry /= 10;
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANO;
        let whole = self.nanos % NANO == 0;
        if self.nanos == 0 {
            f.write_str("0")
        } else if self.format == Format::BinarySi && whole && units.abs() >= 1024 {
            binary(units, f)
        } else {
            decimal(self.nanos, self.format, f)
        }
    }
}

fn binary(mut number: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut i = 0;
    while number % 1024 == 0 && i + 1 < suffixes.len() {
        number /= 1024;
        i += 1;
    }
    write!(f, "{number}{}", suffixes[i])
}

fn decimal(mut number: i128, format: Format, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut i = 0;
    while number % 1000 == 0 && i + 1 < suffixes.len() {
        number /= 1000;
        i += 1;
    }
    match (format, 3 * (i as i32 - 3)) {
        (Format::DecimalExponent, 0) => write!(f, "{number}"),
        (Format::DecimalExponent, exponent) => write!(f, "{number}e{exponent}"),
        _ => write!(f, "{number}{}", suffixes[i]),
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseError::Malformed => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            ParseError::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn parse_and_print() {
        for (text, printed, value, milli) in [
            ("0", "0", 0, 0),
            ("-0", "0", 0, 0),
            ("100m", "100m", 1, 100),
            ("1000m", "1", 1, 1000),
            ("0.1", "100m", 1, 100),
            (".", "0", 0, 0),
            (".5", "500m", 1, 500),
            ("1.", "1", 1, 1000),
            ("+2", "2", 2, 2000),
            ("-1500m", "-1500m", -2, -1500),
            ("1024", "1024", 1024, 1_024_000),
            ("1024Ki", "1Mi", 1 << 20, 1000 << 20),
            ("1.5Gi", "1536Mi", 3 << 29, 1000 * (3 << 29)),
            ("0.5Ki", "512", 512, 512_000),
            ("0.1Ki", "102400m", 103, 102_400),
            ("0.0001Ki", "102400u", 1, 103),
            ("1.1234567890123Ki", "1150419751949n", 1151, 1_150_420),
            ("1Ei", "1Ei", 1 << 60, i64::MAX),
            ("8Ei", "9223372036854775807", i64::MAX, i64::MAX),
            ("-9Ei", "-9223372036854775807", -i64::MAX, i64::MIN),
            ("1e3", "1e3", 1000, 1_000_000),
            ("1E3", "1e3", 1000, 1_000_000),
            ("12e-1", "1200e-3", 2, 1200),
            ("1E", "1E", 1_000_000_000_000_000_000, i64::MAX),
            ("123456789012345678901234", "123456789012345678901234", i64::MAX, i64::MAX),
            ("1e-999999999", "1e-9", 1, 1),
            ("1.0000000001", "1000000001n", 2, 1001),
            ("5n", "5n", 1, 1),
            ("1500k", "1500k", 1_500_000, 1_500_000_000),
            ("100000", "100k", 100_000, 100_000_000),
        ] {
            let quantity = q(text);
            assert_eq!(quantity.to_string(), printed, "{text}");
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli), "{text}");
            assert_eq!(q(printed), quantity, "{text} round trip");
        }
    }

    #[test]
    fn what_the_api_gives_back() {
        for (text, given) in [
            ("1", "1"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1E3"),
            ("100000", "100k"),
            ("0.0", "0"),
            ("00", "0"),
            ("+1", "+1"),
            ("1.", "1."),
            (".5", "500m"),
            ("1500m", "1500m"),
            ("1.000", "1"),
            ("1e-3", "1e-3"),
            ("9223372036854775808", "9223372036854775808"),
            ("8Ei", "9223372036854775807"),
            ("500000000000000000", "500P"),
            ("1000Pi", "1000Pi"),
            (" 5 ", "5"),
            ("1234567890123456789", "1234567890123456789"),
            ("5000Ti", "5000Ti"),
            ("-5Gi", "-5Gi"),
        ] {
            assert_eq!(normalize(text).as_deref(), Ok(given), "{text}");
        }
        assert!("1e999999999".parse::<Quantity>().is_ok_and(|q| q.value() == i64::MAX));
    }

    #[test]
    fn refused() {
        for text in
            ["", "-", "+", "m", "1 ", " 1", "1.1.1", "1mm", "1ki", "1K", "1e", "1e1.5", "--1", "0x1", "1Gib", "١"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        assert!("9".repeat(MAX_DIGITS + 1).parse::<Quantity>().is_err());
    }

    #[test]
    fn arithmetic_and_order() {
        assert_eq!((q("1Gi") + q("512Mi")).to_string(), "1536Mi");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1") - q("100m")).to_string(), "900m");
        assert_eq!(q("1Gi").cmp(&q("1G")), Ordering::Greater);
        assert_eq!(q("1e3"), q("1k"));
        assert_eq!([q("100m"), q("200m")].into_iter().sum::<Quantity>().to_string(), "300m");
        assert_eq!(q("1u").round_up_milli().to_string(), "1m");
        assert_eq!(Quantity::from_milli(250, Format::DecimalSi).to_string(), "250m");
        assert_eq!(Quantity::from_units(2048, Format::BinarySi).to_string(), "2Ki");
        let mut huge = q("1e99");
        for _ in 0..20 {
            huge = huge + huge;
        }
        assert_eq!(huge.value(), i64::MAX);
    }
}
