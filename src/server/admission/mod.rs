//! Admission: one file per plugin, one line here, upstream's order. All mutating steps run before all validating ones.

use crate::object::Object;
use crate::server::authz::Authorizer;
use crate::server::kinds::Kind;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::Result;
use async_trait::async_trait;

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

/// All plugins in upstream's order.
pub static PLUGINS: &[&dyn Plugin] = &[];
