//! Every kind the server serves: one static declaration per kind in its own file, one line here (DESIGN D1).
//!
//! Routes, discovery, OpenAPI, Tables, RBAC names, storage keys, namespace deletion and garbage collection derive
//! from the table. A CustomResourceDefinition becomes a [`Kind`] at run time (strings interned).

use crate::field::Errors;
use crate::object::Object;
use crate::server::request::UserInfo;
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

    /// Write into a new object who made it (certificate signing requests). After [`Strategy::prepare_create`].
    fn record_creator(&self, _obj: &mut Object, _user: &UserInfo) {}

    /// A create keeps the status it was sent with (nodes). Otherwise it is dropped before [`Strategy::prepare_create`].
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Change an updated object before validation: carry over what clients may not change.
    fn prepare_update(&self, _new: &mut Object, _old: &Object) {}

    /// Same for a write to `/status`.
    fn prepare_status_update(&self, _new: &mut Object, _old: &Object) {}

    /// Check a whole object (create, and the new side of updates).
    fn validate(&self, _obj: &Object, _errors: &mut Errors) {}

    /// What only creates are refused for; [`Strategy::validate`] has run.
    fn validate_create(&self, _obj: &Object, _errors: &mut Errors) {}

    /// Bring back what a write of this subresource may not change; `now` is RFC 3339.
    fn prepare_subresource(&self, _subresource: &str, _new: &mut Object, _old: &Object, _now: &str) {}

    /// Check a write to a subresource of the kind's own (pods: `ephemeralcontainers`, `resize`);
    /// [`Strategy::validate`] has run on `new`.
    fn validate_subresource(&self, _subresource: &str, _new: &Object, _old: &Object, _errors: &mut Errors) {}

    /// Check a change (immutable fields); [`Strategy::validate`] has run on `new`.
    fn validate_update(&self, _new: &Object, _old: &Object, _errors: &mut Errors) {}

    fn validate_status_update(&self, _new: &Object, _old: &Object, _errors: &mut Errors) {}

    /// Warnings for the `Warning:` header.
    fn warnings(&self, _new: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// Change an object whose deletion begins but has to wait (namespaces become Terminating).
    fn prepare_delete(&self, _obj: &mut Object) {}

    /// Something besides `metadata.finalizers` keeps a deleted object alive (namespaces: `spec.finalizers`).
    fn holds_deletion(&self, _obj: &Object) -> bool {
        false
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
    /// What a kind is unless its declaration says otherwise. The empty names are caught by the table's test.
    pub const BASE: Kind = Kind {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        scope: Scope::Namespaced,
        short_names: &[],
        categories: &[],
        verbs: Verbs::All,
        subresources: &[],
        storage: "",
        selectable: &[],
        columns: &[Column::NAME, Column::CREATED_AT],
        conversion: None,
        strategy: &Plain,
    };

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

pub mod cells;
mod generation;
pub mod names;
pub mod podspec;
pub mod rules;
pub mod tree;
pub mod view;

pub mod admissionregistration {
    pub mod mutatingadmissionpolicy;
    pub mod mutatingadmissionpolicybinding;
    pub mod mutatingwebhookconfiguration;
    pub mod validatingadmissionpolicy;
    pub mod validatingadmissionpolicybinding;
    pub mod validatingwebhookconfiguration;
}
pub mod apiextensions {
    pub mod customresourcedefinition;
}
pub mod apiregistration {
    pub mod apiservice;
}
pub mod apps {
    pub mod controllerrevision;
    pub mod daemonset;
    pub mod deployment;
    pub mod replicaset;
    pub mod statefulset;
}
pub mod authentication {
    pub mod selfsubjectreview;
    pub mod tokenreview;
}
pub mod authorization {
    pub mod localsubjectaccessreview;
    pub mod selfsubjectaccessreview;
    pub mod selfsubjectrulesreview;
    pub mod subjectaccessreview;
}
pub mod autoscaling {
    pub mod horizontalpodautoscaler;
    pub mod horizontalpodautoscaler_v1;
}
pub mod batch {
    pub mod cronjob;
    pub mod job;
    pub mod schedule;
}
pub mod certificates {
    pub mod certificatesigningrequest;
    pub mod clustertrustbundle;
    pub mod podcertificaterequest;
}
pub mod coordination {
    pub mod lease;
}
pub mod core {
    pub mod binding;
    pub mod componentstatus;
    pub mod configmap;
    pub mod endpoints;
    pub mod event;
    pub mod limitrange;
    pub mod namespace;
    pub mod node;
    pub mod persistentvolume;
    pub mod persistentvolumeclaim;
    pub mod pod;
    pub mod podtemplate;
    pub mod replicationcontroller;
    pub mod resourcequota;
    pub mod secret;
    pub mod service;
    pub mod serviceaccount;
}
pub mod discovery {
    pub mod endpointslice;
}
pub mod events {
    pub mod event;
}
pub mod flowcontrol {
    pub mod flowschema;
    pub mod prioritylevelconfiguration;
}
pub mod networking {
    pub mod ingress;
    pub mod ingressclass;
    pub mod ipaddress;
    pub mod networkpolicy;
    pub mod servicecidr;
}
pub mod node {
    pub mod runtimeclass;
}
pub mod policy {
    pub mod poddisruptionbudget;
}
pub mod rbac {
    pub mod clusterrole;
    pub mod clusterrolebinding;
    pub mod role;
    pub mod rolebinding;
}
pub mod resource {
    pub mod deviceclass;
    pub mod devicetaintrule;
    pub mod resourceclaim;
    pub mod resourceclaimtemplate;
    pub mod resourceslice;
}
pub mod scheduling {
    pub mod priorityclass;
}
pub mod storage {
    pub mod csidriver;
    pub mod csinode;
    pub mod csistoragecapacity;
    pub mod storageclass;
    pub mod volumeattachment;
    pub mod volumeattributesclass;
}
pub mod storagemigration {
    pub mod storageversionmigration;
}

/// The table. One line a kind, sorted by group, version, plural; checked as data by a test.
pub static TABLE: &[&Kind] = &[
    &core::binding::KIND,
    &core::componentstatus::KIND,
    &core::configmap::KIND,
    &core::endpoints::KIND,
    &core::event::KIND,
    &core::limitrange::KIND,
    &core::namespace::KIND,
    &core::node::KIND,
    &core::persistentvolumeclaim::KIND,
    &core::persistentvolume::KIND,
    &core::pod::KIND,
    &core::podtemplate::KIND,
    &core::replicationcontroller::KIND,
    &core::resourcequota::KIND,
    &core::secret::KIND,
    &core::serviceaccount::KIND,
    &core::service::KIND,
    &admissionregistration::mutatingadmissionpolicy::KIND,
    &admissionregistration::mutatingadmissionpolicybinding::KIND,
    &admissionregistration::mutatingwebhookconfiguration::KIND,
    &admissionregistration::validatingadmissionpolicy::KIND,
    &admissionregistration::validatingadmissionpolicybinding::KIND,
    &admissionregistration::validatingwebhookconfiguration::KIND,
    &apiextensions::customresourcedefinition::KIND,
    &apiregistration::apiservice::KIND,
    &apps::controllerrevision::KIND,
    &apps::daemonset::KIND,
    &apps::deployment::KIND,
    &apps::replicaset::KIND,
    &apps::statefulset::KIND,
    &authentication::selfsubjectreview::KIND,
    &authentication::tokenreview::KIND,
    &authorization::localsubjectaccessreview::KIND,
    &authorization::selfsubjectaccessreview::KIND,
    &authorization::selfsubjectrulesreview::KIND,
    &authorization::subjectaccessreview::KIND,
    &autoscaling::horizontalpodautoscaler_v1::KIND,
    &autoscaling::horizontalpodautoscaler::KIND,
    &batch::cronjob::KIND,
    &batch::job::KIND,
    &certificates::certificatesigningrequest::KIND,
    &certificates::clustertrustbundle::KIND,
    &certificates::podcertificaterequest::KIND,
    &coordination::lease::KIND,
    &discovery::endpointslice::KIND,
    &events::event::KIND,
    &flowcontrol::flowschema::KIND,
    &flowcontrol::prioritylevelconfiguration::KIND,
    &networking::ingressclass::KIND,
    &networking::ingress::KIND,
    &networking::ipaddress::KIND,
    &networking::networkpolicy::KIND,
    &networking::servicecidr::KIND,
    &node::runtimeclass::KIND,
    &policy::poddisruptionbudget::KIND,
    &rbac::clusterrolebinding::KIND,
    &rbac::clusterrole::KIND,
    &rbac::rolebinding::KIND,
    &rbac::role::KIND,
    &resource::deviceclass::KIND,
    &resource::devicetaintrule::KIND,
    &resource::resourceclaim::KIND,
    &resource::resourceclaimtemplate::KIND,
    &resource::resourceslice::KIND,
    &scheduling::priorityclass::KIND,
    &storage::csidriver::KIND,
    &storage::csinode::KIND,
    &storage::csistoragecapacity::KIND,
    &storage::storageclass::KIND,
    &storage::volumeattachment::KIND,
    &storage::volumeattributesclass::KIND,
    &storagemigration::storageversionmigration::KIND,
];

#[cfg(test)]
mod tests;
