//! What a request asks for: upstream's `RequestInfo` and `user.Info`, parsed once, read everywhere.

mod info;
pub mod options;

pub use crate::wire::query::Query;

use std::collections::BTreeMap;

/// Who asks (upstream `user.Info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub const ANONYMOUS: &'static str = "system:anonymous";
    pub const MASTERS: &'static str = "system:masters";
    pub const AUTHENTICATED: &'static str = "system:authenticated";
    pub const UNAUTHENTICATED: &'static str = "system:unauthenticated";

    /// An authenticated user of these groups (`system:authenticated` is added).
    pub fn authenticated(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([Self::AUTHENTICATED]).map(str::to_owned).collect();
        UserInfo { name: name.to_owned(), groups, ..Default::default() }
    }

    pub fn anonymous() -> Self {
        let groups = vec![Self::UNAUTHENTICATED.to_owned()];
        UserInfo { name: Self::ANONYMOUS.to_owned(), groups, ..Default::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What is asked for (upstream `RequestInfo`). For a non-resource request only `verb` (lower-case HTTP method) and
/// `path` are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection, proxy; or the lower-case HTTP method.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Path segments after the subresource (`proxy/a/b` → `a/b`).
    pub rest: String,
    /// `fieldSelector` of list, watch and deletecollection, decoded; authorizers may narrow by it.
    pub field_selector: String,
}
