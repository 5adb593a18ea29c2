//! Quantities: `100m`, `1Gi`, `1e3` (upstream's `resource.Quantity`: exact decimal, never finer than nano).

use std::fmt;
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

/// Why a text is no quantity; `Display` is upstream's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError;

impl Quantity {
    pub fn from_units(_units: i64, _format: Format) -> Self {
        todo!()
    }

    pub fn from_milli(_milli: i64, _format: Format) -> Self {
        todo!()
    }

    /// Whole units, rounded up; limited to the range of i64.
    pub fn value(&self) -> i64 {
        todo!()
    }

    /// Thousandths, rounded up; limited to the range of i64.
    pub fn milli_value(&self) -> i64 {
        todo!()
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }
}

impl FromStr for Quantity {
    type Err = ParseError;
    fn from_str(_text: &str) -> Result<Self, ParseError> {
        todo!()
    }
}

impl fmt::Display for Quantity {
    /// The canonical form.
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    }
}

impl std::error::Error for ParseError {}
