//! Admission: one file per plugin, one line here, upstream's order. All mutating steps run before all validating ones.

use crate::object::{Object, ObjectExt};
use crate::server::authz::Authorizer;
use crate::server::kinds::Kind;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Result, Status};
use async_trait::async_trait;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What a plugin sees. `object` is the new object (None for DELETE), `old` the stored one.
pub struct Request<'a> {
    pub operation: Operation,
    pub kind: &'static Kind,
    pub info: &'a RequestInfo,
    pub user: &'a UserInfo,
    pub object: Option<&'a mut Object>,
    pub old: Option<&'a Object>,
    pub dry_run: bool,
    /// The whole chain, for checks beyond the request itself (escalation, approval).
    pub authorizer: &'a dyn Authorizer,
    /// `Warning:` headers to send.
    pub warnings: &'a mut Vec<String>,
}

/// Read access that plugins have to the cluster (same process, consistent reads, no authorization).
#[async_trait]
pub trait Reader: Send + Sync {
    /// One object by resource (`""`, `"namespaces"`), or None.
    async fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Result<Option<Object>>;
    async fn list(&self, group: &str, resource: &str, namespace: &str) -> Result<Vec<Object>>;
}

/// An admission plugin (upstream `admission.Interface`).
#[async_trait]
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Change or refuse.
    async fn admit(&self, _request: &mut Request<'_>, _reader: &dyn Reader) -> Result<()> {
        Ok(())
    }

    /// Refuse only; runs after all changes.
    async fn validate(&self, _request: &Request<'_>, _reader: &dyn Reader) -> Result<()> {
        Ok(())
    }
}

impl Request<'_> {
    /// Whether the request is about this resource (or a subresource of it).
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.kind.group == group && self.kind.plural == resource
    }

    /// Whether it is about the resource itself.
    pub fn is_main(&self, group: &str, resource: &str) -> bool {
        self.is(group, resource) && self.info.subresource.is_empty()
    }

    pub fn is_sub(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.is(group, resource) && self.info.subresource == subresource
    }
}

/// The refusal of a plugin: `pods "x" is forbidden: why`.
fn forbidden(request: &Request<'_>, why: impl std::fmt::Display) -> Status {
    let object = request.object.as_deref().or(request.old);
    let from_object =
        object.map(|o| if o.name().is_empty() { o.str_at(&["metadata", "generateName"]) } else { o.name() });
    let name = from_object.filter(|n| !n.is_empty()).unwrap_or(&request.info.name);
    Status::forbidden(request.kind.group, request.kind.plural, name, why)
}

/// The elements of the list at a path; none where there is no list.
fn items<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.at(path).and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter()
}

/// The list at a path, made where there is none.
fn array_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    if !value.at(path).is_some_and(Value::is_array) {
        value.set_at(path, Value::Array(Vec::new()));
    }
    let list = path.iter().fold(value, |v, key| &mut v[*key]);
    list.as_array_mut().expect("made a list above")
}

/// Name of the newest class that one of the annotations marks as default (`"true"`); of equally old ones the first by
/// name.
fn newest_default<'a>(classes: &'a [Object], annotations: &[&str]) -> Option<&'a str> {
    let is_default = |class: &&Object| {
        annotations.iter().any(|a| class.annotations().and_then(|map| map.get(*a)).is_some_and(|v| v == "true"))
    };
    let order = |class: &&Object| {
        (class.str_at(&["metadata", "creationTimestamp"]).to_owned(), std::cmp::Reverse(class.name().to_owned()))
    };
    classes.iter().filter(is_default).max_by_key(order).map(|class| class.name())
}

mod certificates;
mod default_ingress_class;
mod default_storage_class;
mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod rbac_escalation;
mod runtime_class;
mod service_account;
mod storage_protection;
mod taint_nodes;

pub use default_tolerations::DefaultTolerationSeconds;

/// Let a plugin with other settings take the place of the one of its name. It lives as long as the process.
pub fn configure(plugins: &mut [&'static dyn Plugin], plugin: impl Plugin + 'static) {
    if let Some(place) = plugins.iter_mut().find(|p| p.name() == plugin.name()) {
        *place = Box::leak(Box::new(plugin));
    }
}

/// All plugins in upstream's order.
pub static PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &taint_nodes::TaintNodesByCondition,
    &priority::Priority,
    &default_tolerations::DefaultTolerationSeconds::DEFAULT,
    &default_storage_class::DefaultStorageClass,
    &storage_protection::StorageObjectInUseProtection,
    &runtime_class::RuntimeClass,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
    &default_ingress_class::DefaultIngressClass,
    &rbac_escalation::RbacEscalation,
];
