//! The four patch types, all pure: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge, server-side apply.

use crate::server::schema::{Schema, TypeId};

pub mod apply;
pub mod fields;
pub mod json;
pub mod managed;
pub mod merge;
pub mod strategic;

/// Which schema a patch is read with.
#[derive(Clone, Copy)]
pub struct Typed<'a> {
    pub schema: &'a Schema,
    pub ty: TypeId,
}

/// Who writes, for managedFields.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    pub name: &'a str,
    /// Of the request: `apps/v1`.
    pub api_version: &'a str,
    /// `""`, `status`, `scale`.
    pub subresource: &'a str,
    /// RFC 3339 time of the request.
    pub time: &'a str,
}
