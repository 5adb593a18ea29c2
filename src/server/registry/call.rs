//! One request on one kind, and what it is answered with.

use super::{Served, key_of, parse, store_error, too_large_revision};
use crate::object::{Object, ObjectExt};
use crate::server::admission::{Operation, Request};
use crate::server::api::Api;
use crate::server::authz::Authorizer;
use crate::server::patch::Manager;
use crate::server::request::options::WriteOptions;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Result, Status, Success};
use crate::store::{KeyRange, KeyValue, RangeRequest, Revision};
use crate::{field, time};
use bytes::Bytes;
use std::sync::Arc;

/// A request after authorization. Cloned where one request works on many objects.
#[derive(Clone)]
pub struct Call {
    pub api: Arc<Api>,
    pub served: Served,
    pub info: Arc<RequestInfo>,
    pub user: Arc<UserInfo>,
    pub write: WriteOptions,
    /// Default of `fieldManager`: the first word of the user agent.
    pub agent: String,
    /// Texts for `Warning:` headers.
    pub warnings: Vec<String>,
}

/// A successful answer with one object.
#[derive(Debug)]
pub struct Answer {
    pub success: Success,
    pub object: Object,
    /// The stored bytes of just this object, so that it need not be encoded again.
    pub stored: Option<(Bytes, Revision)>,
}

impl Answer {
    pub fn of(object: Object) -> Self {
        Answer { success: Success::Ok, object, stored: None }
    }
}

impl Call {
    pub fn kind(&self) -> &'static crate::server::kinds::Kind {
        self.served.kind
    }

    /// The namespace that objects of this call are in ("" for cluster scope).
    pub fn namespace(&self) -> &str {
        if self.kind().is_namespaced() { &self.info.namespace } else { "" }
    }

    pub fn key(&self, name: &str) -> Bytes {
        key_of(self.kind(), self.namespace(), name)
    }

    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.kind().group, self.kind().plural, name)
    }

    pub fn invalid(&self, name: &str, errors: field::Errors) -> Status {
        Status::invalid(self.kind().group, self.kind().kind, name, errors)
    }

    /// The stored state of an object, not older than `revision`.
    pub async fn read(&self, name: &str, revision: Option<Revision>) -> Result<Option<KeyValue>> {
        let range = KeyRange::key(self.key(name));
        let found = self.api.registry().store().range(RangeRequest::of(range)).await.map_err(store_error)?;
        if revision.is_some_and(|r| r > found.revision) {
            return Err(too_large_revision(found.revision));
        }
        Ok(found.kvs.into_iter().next())
    }

    /// The stored state of an object, read and parsed; 404 where there is none.
    pub async fn load(&self, name: &str) -> Result<(KeyValue, Object)> {
        let kv = self.read(name, None).await?.ok_or_else(|| self.not_found(name))?;
        let object = parse(self.kind(), &kv.value, kv.mod_revision)?;
        Ok((kv, object))
    }

    /// Who is recorded in managedFields.
    pub fn manager<'a>(&'a self, api_version: &'a str, subresource: &'a str, time: &'a str) -> Manager<'a> {
        let name = if self.write.field_manager.is_empty() { &self.agent } else { &self.write.field_manager };
        Manager { name, api_version, subresource, time }
    }

    /// The time of this request as the API writes it.
    pub fn now(&self) -> String {
        time::rfc3339(time::now())
    }

    /// Run the mutating admission plugins.
    pub async fn admit(
        &mut self,
        operation: Operation,
        object: Option<&mut Object>,
        old: Option<&Object>,
    ) -> Result<()> {
        let api = self.api.clone();
        let mut request = self.admission(operation, object, old, &*api);
        for plugin in api.plugins() {
            plugin.admit(&mut request, &**api.registry()).await?;
        }
        Ok(())
    }

    /// Run the validating admission plugins.
    pub async fn check(
        &mut self,
        operation: Operation,
        object: Option<&mut Object>,
        old: Option<&Object>,
    ) -> Result<()> {
        let api = self.api.clone();
        let request = self.admission(operation, object, old, &*api);
        for plugin in api.plugins() {
            plugin.validate(&request, &**api.registry()).await?;
        }
        Ok(())
    }

    fn admission<'a>(
        &'a mut self,
        operation: Operation,
        object: Option<&'a mut Object>,
        old: Option<&'a Object>,
        authorizer: &'a dyn Authorizer,
    ) -> Request<'a> {
        Request {
            operation,
            kind: self.served.kind,
            info: &self.info,
            user: &self.user,
            object,
            old,
            dry_run: self.write.dry_run,
            authorizer,
            warnings: &mut self.warnings,
        }
    }

    /// Give a new or changed object the namespace of the request.
    pub fn settle_namespace(&self, object: &mut Object) -> Result<()> {
        let namespace = self.namespace();
        let given = object.namespace();
        if namespace.is_empty() {
            object.remove_at(&["metadata", "namespace"]);
            return Ok(());
        }
        if !given.is_empty() && given != namespace {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(why));
        }
        object.metadata_mut().insert("namespace".to_owned(), namespace.into());
        Ok(())
    }
}
