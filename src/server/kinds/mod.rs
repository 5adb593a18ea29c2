//! Every kind the server serves: one static declaration per kind in its own file, one line here (DESIGN D1).
//!
//! Routes, discovery, OpenAPI, Tables, RBAC names, storage keys, namespace deletion and garbage collection derive
//! from the table. A CustomResourceDefinition becomes a [`Kind`] at run time (strings interned).

use crate::field::Errors;
use crate::object::Object;
use crate::server::table::Column;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Which of the eight verbs a resource has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// create delete deletecollection get list patch update watch
    All,
    /// All but deletecollection (namespaces).
    NoCollectionDelete,
    /// Virtual resources that are only created and never stored (reviews, bindings).
    CreateOnly,
    /// get list (componentstatuses).
    ReadOnly,
}

/// A subresource with its verbs and the kind it speaks, if not the parent's.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub verbs: &'static [&'static str],
    /// (group, version, kind) of its body where that is not the parent's kind, e.g. `("autoscaling", "v1", "Scale")`.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
}

pub const STATUS: Subresource = Subresource { name: "status", verbs: &["get", "patch", "update"], kind: None };
pub const SCALE: Subresource =
    Subresource { name: "scale", verbs: &["get", "patch", "update"], kind: Some(("autoscaling", "v1", "Scale")) };

/// Grace period decision for a DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// The kind knows no graceful deletion.
    Immediate,
    /// Set deletionTimestamp and wait this many seconds (0: remove now).
    Seconds(u64),
}

/// What one kind does differently. Pure: no clock, no client, no async. Everything has a default.
///
/// The pipeline itself does what all kinds share: metadata rules, generation, status reset on main writes and spec
/// reset on status writes (where the kind has a status subresource), finalizers, managed fields.
pub trait Strategy: Sync + Send {
    /// Fill in defaults. Called on every decoded object: create, update, patch result, and the `from` side of
    /// server-side apply. Must be idempotent.
    fn default(&self, _obj: &mut Object) {}

    /// Change a new object before validation (drop status is already done).
    fn prepare_create(&self, _obj: &mut Object) {}

    /// Change an updated object before validation: carry over what clients may not change.
    fn prepare_update(&self, _new: &mut Object, _old: &Object) {}

    /// Same for a write to `/status`.
    fn prepare_status_update(&self, _new: &mut Object, _old: &Object) {}

    /// Check a whole object (create, and the new side of updates).
    fn validate(&self, _obj: &Object, _errors: &mut Errors) {}

    /// Check a change (immutable fields); [`Strategy::validate`] has run on `new`.
    fn validate_update(&self, _new: &Object, _old: &Object, _errors: &mut Errors) {}

    fn validate_status_update(&self, _new: &Object, _old: &Object, _errors: &mut Errors) {}

    /// Warnings for the `Warning:` header.
    fn warnings(&self, _new: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// How a DELETE with this `gracePeriodSeconds` goes (pods).
    fn grace(&self, _obj: &Object, _requested: Option<u64>) -> Grace {
        Grace::Immediate
    }

    /// How `metadata.name` is checked (default: DNS-1123 subdomain).
    fn validate_name(&self, name: &str) -> Result<(), String> {
        crate::server::kinds::names::dns_subdomain(name)
    }

    /// PUT to a name that does not exist creates it (leases, endpoints, events, nodes? see upstream per kind).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// PUT without resourceVersion is allowed.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Value of a selectable field beyond plain paths (`None`: read the path).
    fn selectable_value(&self, _obj: &Object, _field: &str) -> Option<String> {
        None
    }

    /// Cells of one Table row, in the order of [`Kind::columns`]. `now` is Unix seconds, for ages.
    fn row(&self, obj: &Object, now: i64) -> Vec<Value> {
        crate::server::table::default_row(obj, now)
    }
}

/// The strategy of kinds that have nothing of their own.
pub struct Plain;
impl Strategy for Plain {}

/// Conversion between a served version and the stored one, where two versions share storage.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// (group, version) under which the object is stored.
    pub stored: (&'static str, &'static str),
    pub to_stored: fn(&mut Object),
    pub from_stored: fn(&mut Object),
}

/// One served resource.
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub scope: Scope,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub verbs: Verbs,
    pub subresources: &'static [Subresource],
    /// Path below `/registry/` (etcd's usual layout: `pods`, `services/specs`, `minions`).
    pub storage: &'static str,
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    pub columns: &'static [Column],
    pub conversion: Option<Conversion>,
    pub strategy: &'static dyn Strategy,
}

impl Kind {
    pub fn api_version(&self) -> String {
        crate::object::api_version(self.group, self.version)
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Kept in the store (reviews and bindings are not).
    pub fn is_stored(&self) -> bool {
        matches!(self.verbs, Verbs::All | Verbs::NoCollectionDelete)
    }

    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }
}

pub mod names;
pub mod configmap;

/// The table. One line a kind, sorted by group, version, plural; checked as data by a test.
pub static TABLE: &[&Kind] = &[&configmap::KIND];
