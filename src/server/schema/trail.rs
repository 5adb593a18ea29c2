//! Where a walk over a tree is: made on the stack on the way down, printed only when something is wrong there.

use std::fmt;

pub enum Trail<'a> {
    Root,
    /// A field of a struct.
    Field(&'a Trail<'a>, &'a str),
    /// Structs embedded in Go, which JSON does not see: `VolumeSource`.
    Embedded(&'a Trail<'a>, &'a str),
    /// A key of a map.
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    fn is_root(&self) -> bool {
        match self {
            Trail::Root => true,
            Trail::Embedded(parent, _) => parent.is_root(),
            _ => false,
        }
    }

    /// Struct fields alone, as Go's decoder names a place: `spec.volumes.VolumeSource.emptyDir`.
    pub fn fields(&self) -> String {
        match self {
            Trail::Root => String::new(),
            Trail::Key(parent, _) | Trail::Index(parent, _) => parent.fields(),
            Trail::Embedded(parent, "") => parent.fields(),
            Trail::Field(parent, name) | Trail::Embedded(parent, name) => match parent.fields() {
                before if before.is_empty() => (*name).to_owned(),
                before => format!("{before}.{name}"),
            },
        }
    }
}

impl fmt::Display for Trail<'_> {
    /// `spec.containers[0].image`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Embedded(parent, _) => write!(f, "{parent}"),
            Trail::Field(parent, name) | Trail::Key(parent, name) => {
                let dot = if parent.is_root() { "" } else { "." };
                write!(f, "{parent}{dot}{name}")
            }
            Trail::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}
