//! Objects against the schema: types, unknown fields, pruning (what upstream's strict JSON decoder does), and the
//! form that a round trip through upstream's Go structs leaves.

use crate::object::Object;
use crate::server::patch::Typed;
use crate::status::Result;

/// The `fieldValidation` query parameter (KEP-2885).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// None: not one of the three words. Absent and empty mean Warn.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Check a decoded tree against its type: values of the wrong JSON type are an error (Go's text), unknown fields and
/// nulls are removed. Returns one `unknown field "spec.replicaz"` for each field removed for being unknown.
pub fn check(_object: &mut Object, _typed: Typed<'_>) -> std::result::Result<Vec<String>, String> {
    todo!()
}

/// Bring a checked tree into the form a round trip through upstream's structs leaves: empty omitempty values go,
/// fields that are always written appear (`status: {}`, `resources: {}`), times, durations and numeric quantities get
/// their printed form. Not for server-side apply configurations: there absence means "not mine".
pub fn canonicalize(_object: &mut Object, _typed: Typed<'_>) {
    todo!()
}

/// The whole of a create or update body: [`check`], [`canonicalize`], and what `fieldValidation` makes of the
/// problems (`problems` of [`crate::server::codec::Decoded`] included). Returns the texts for `Warning:` headers;
/// 400 with upstream's text for type errors and, under Strict, for problems.
pub fn admit(
    _object: &mut Object,
    _typed: Typed<'_>,
    _problems: Vec<String>,
    _mode: FieldValidation,
) -> Result<Vec<String>> {
    todo!()
}

/// Problems as `fieldValidation` treats them: warnings, or under Strict the text `strict decoding error: …`.
pub fn enforce(_problems: Vec<String>, _mode: FieldValidation) -> std::result::Result<Vec<String>, String> {
    todo!()
}
