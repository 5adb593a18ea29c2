//! Create: the write pipeline for an object that is not there yet.

use super::{Answer, Call, meta, store_form};
use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::admission::Operation;
use crate::server::{allocation, patch, schema};
use crate::status::{Reason, Result, Status, Success};
use crate::store::{Compare, Op, Txn};

/// How often a generated name, address or port that is taken is drawn again.
const MAX_ATTEMPTS: usize = 8;

impl Call {
    /// Create a decoded and checked object. `owned`: its managedFields are complete already (server-side apply).
    pub async fn create(&mut self, mut object: Object, owned: bool) -> Result<Answer> {
        self.settle_namespace(&mut object)?;
        if !object.resource_version().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let base = object.str_at(&["metadata", "generateName"]).to_owned();
        let generated = object.name().is_empty() && !base.is_empty();
        let mut last = Status::internal("cannot allocate: every choice was taken meanwhile");
        for _ in 0..MAX_ATTEMPTS {
            let mut candidate = object.clone();
            if generated {
                candidate.metadata_mut().insert("name".to_owned(), meta::generate_name(&base).into());
            }
            let warnings = self.warnings.len();
            match self.create_once(candidate, owned).await {
                Err(status) if generated && status.is(Reason::AlreadyExists) => last = status,
                Ok(None) => {}
                Ok(Some(answer)) => return Ok(answer),
                Err(status) => return Err(status),
            }
            self.warnings.truncate(warnings);
        }
        Err(last)
    }

    /// One attempt. None: an address or port that was free has been taken meanwhile.
    async fn create_once(&mut self, mut object: Object, owned: bool) -> Result<Option<Answer>> {
        let kind = self.kind();
        self.begin(&mut object);
        kind.strategy.default(&mut object);
        if let Some(typed) = self.served.typed.filter(|_| !owned) {
            let now = self.now();
            let api_version = kind.api_version();
            patch::apply::update(None, &mut object, self.manager(&api_version, "", &now), typed);
        }
        self.admit(Operation::Create, Some(&mut object), None).await?;
        kind.strategy.prepare_create(&mut object);
        kind.strategy.record_creator(&mut object, &self.user);
        let extra = allocation::plan(self, None, Some(&mut object)).await?;
        if let Some(typed) = self.served.typed {
            schema::check::canonicalize(&mut object, typed);
        }
        let mut errors = Errors::new();
        meta::validate(kind, &object, &mut errors);
        kind.strategy.validate(&object, &mut errors);
        kind.strategy.validate_create(&object, &mut errors);
        if !errors.is_empty() {
            return Err(self.invalid(object.name(), errors));
        }
        self.warnings.extend(kind.strategy.warnings(&object, None));
        self.check(Operation::Create, Some(&mut object), None).await?;
        if self.write.dry_run {
            self.refuse_existing(object.name()).await?;
            return Ok(Some(Answer { success: Success::Created, object, stored: None }));
        }
        let value = store_form(kind, &object)?;
        let key = self.key(object.name());
        let mut txn = Txn {
            compare: vec![Compare::missing(key.clone())],
            success: vec![Op::put(key, value.clone())],
            failure: vec![],
        };
        extra.add_to(&mut txn);
        let done = self.api.registry().store().txn(txn).await.map_err(super::store_error)?;
        if !done.succeeded {
            self.refuse_existing(object.name()).await?;
            return Ok(None);
        }
        object.metadata_mut().insert("resourceVersion".to_owned(), done.revision.to_string().into());
        Ok(Some(Answer { success: Success::Created, object, stored: Some((value, done.revision)) }))
    }

    /// What the server alone decides about a new object's metadata and status.
    fn begin(&self, object: &mut Object) {
        let kind = self.kind();
        if kind.has_status() && !kind.strategy.keeps_status_on_create() {
            object.remove_at(&["status"]);
        }
        object.set_at(&["apiVersion"], kind.api_version().into());
        object.set_at(&["kind"], kind.kind.into());
        let now = self.now();
        let metadata = object.metadata_mut();
        for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"] {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".to_owned(), now.into());
        if kind.counts_generations() {
            metadata.insert("generation".to_owned(), 1.into());
        }
    }

    async fn refuse_existing(&self, name: &str) -> Result<()> {
        match self.read(name, None).await? {
            Some(_) => Err(Status::already_exists(self.kind().group, self.kind().plural, name)),
            None => Ok(()),
        }
    }
}
