//! Update and patch: the write pipeline for an object that is there.

use super::{Answer, Call, meta, parse, store_form};
use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::server::admission::Operation;
use crate::server::{allocation, patch, schema};
use crate::status::{Result, Status, Success};
use crate::store::{Compare, KeyRange, KeyValue, Op, Txn};
use serde_json::Value;

/// How often a change is tried again when somebody else was faster. Upstream gives up on patches after five; in one
/// process the race is short, so that only a real storm gets here.
const MAX_CONFLICT_ATTEMPTS: usize = 16;

/// Which part of the object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where the kind has a status subresource.
    Main,
    /// The status and (for built-in kinds) labels and annotations.
    Status,
    /// What the change itself decided (scale, binding, approval, …); the name goes into managedFields.
    Subresource(&'static str),
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Subresource(name) => name,
        }
    }
}

/// What a change makes of the stored object; None for the stored object where there is none. The second value says
/// that managedFields are complete (server-side apply).
pub type Make<'a> = dyn FnMut(Option<&Object>) -> Result<(Object, bool)> + Send + 'a;

/// A change of one object.
pub struct Change<'a> {
    pub part: Part,
    /// Called again with the newer state after each conflict.
    pub make: &'a mut Make<'a>,
    /// A missing object is created.
    pub create: bool,
}

/// How one attempt ended.
enum Outcome {
    Done(Answer),
    /// Somebody else wrote meanwhile.
    Conflict,
}

impl Call {
    /// Change the object `name`.
    pub async fn change(&mut self, name: &str, change: Change<'_>) -> Result<Answer> {
        let Change { part, make, create } = change;
        for _ in 0..MAX_CONFLICT_ATTEMPTS {
            let Some(kv) = self.read(name, None).await? else {
                if !create {
                    return Err(self.not_found(name));
                }
                let (object, owned) = make(None)?;
                return self.create_by_change(name, object, owned).await;
            };
            let old = parse(self.kind(), &kv.value, kv.mod_revision)?;
            let (new, owned) = make(Some(&old))?;
            match self.change_once(name, part, kv, &old, new, owned).await? {
                Outcome::Done(answer) => return Ok(answer),
                Outcome::Conflict => continue,
            }
        }
        Err(Status::modified(self.kind().group, self.kind().plural, name))
    }

    /// PUT or apply of an object that is not there: needs the verb create as well.
    async fn create_by_change(&mut self, name: &str, mut object: Object, owned: bool) -> Result<Answer> {
        let kind = self.kind();
        if !object.name().is_empty() && object.name() != name {
            return Err(name_mismatch(object.name(), name));
        }
        if !object.uid().is_empty() {
            let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: ", object.uid());
            return Err(Status::conflict(kind.group, kind.plural, name, why));
        }
        if !object.resource_version().is_empty() {
            return Err(self.not_found(name));
        }
        object.metadata_mut().insert("name".to_owned(), name.into());
        let mut info = (*self.info).clone();
        "create".clone_into(&mut info.verb);
        self.api.require(&self.user, &info).await?;
        self.create(object, owned).await
    }

    async fn change_once(
        &mut self,
        name: &str,
        part: Part,
        kv: KeyValue,
        old: &Object,
        mut new: Object,
        owned: bool,
    ) -> Result<Outcome> {
        let kind = self.kind();
        self.check_identity(name, old, &new)?;
        self.settle_namespace(&mut new)?;
        self.restore(part, old, &mut new);
        kind.strategy.default(&mut new);
        if let Some(typed) = self.served.typed.filter(|_| !owned) {
            let now = self.now();
            let api_version = kind.api_version();
            patch::apply::update(Some(old), &mut new, self.manager(&api_version, part.name(), &now), typed);
        }
        self.admit(Operation::Update, Some(&mut new), Some(old)).await?;
        self.prepare(part, old, &mut new);
        let extra = allocation::plan(self, Some(old), Some(&mut new)).await?;
        if let Some(typed) = self.served.typed {
            schema::check::canonicalize(&mut new, typed);
        }
        self.validate_change(part, old, &new)?;
        self.check(Operation::Update, Some(&mut new), Some(old)).await?;
        let gone = self.is_finished(&new);
        if self.write.dry_run {
            return Ok(Outcome::Done(Answer::of(new)));
        }
        if gone {
            return self.remove(&kv, new, old).await.map(|a| a.map_or(Outcome::Conflict, Outcome::Done));
        }
        let value = store_form(kind, &new)?;
        if value == kv.value {
            // Nothing changed: no revision, no event.
            new.metadata_mut().insert("resourceVersion".to_owned(), kv.mod_revision.to_string().into());
            return Ok(Outcome::Done(Answer {
                success: Success::Ok,
                object: new,
                stored: Some((value, kv.mod_revision)),
            }));
        }
        let mut txn = Txn {
            compare: vec![Compare::unchanged(kv.key.clone(), kv.mod_revision)],
            success: vec![Op::put(kv.key, value.clone())],
            failure: vec![],
        };
        extra.add_to(&mut txn);
        let done = self.api.registry().store().txn(txn).await.map_err(super::store_error)?;
        if !done.succeeded {
            return Ok(Outcome::Conflict);
        }
        new.metadata_mut().insert("resourceVersion".to_owned(), done.revision.to_string().into());
        Ok(Outcome::Done(Answer { success: Success::Ok, object: new, stored: Some((value, done.revision)) }))
    }

    /// Name, uid and resourceVersion must be those of the stored object, where the client gave them.
    fn check_identity(&self, name: &str, old: &Object, new: &Object) -> Result<()> {
        let kind = self.kind();
        if new.name() != name {
            return Err(name_mismatch(new.name(), name));
        }
        if !new.uid().is_empty() && new.uid() != old.uid() {
            let why =
                format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", new.uid(), old.uid());
            return Err(Status::conflict(kind.group, kind.plural, name, why));
        }
        let revision = new.resource_version();
        if revision.is_empty() || revision == "0" {
            if kind.strategy.allow_unconditional_update() {
                return Ok(());
            }
            let mut errors = Errors::new();
            let path = Path::new("metadata").child("resourceVersion");
            errors.invalid(&path, 0, "must be specified for an update");
            return Err(self.invalid(name, errors));
        }
        if revision != old.resource_version() {
            return Err(Status::modified(kind.group, kind.plural, name));
        }
        Ok(())
    }

    /// Bring back what this write may not change.
    fn restore(&self, part: Part, old: &Object, new: &mut Object) {
        let kind = self.kind();
        new.set_at(&["apiVersion"], kind.api_version().into());
        new.set_at(&["kind"], kind.kind.into());
        match part {
            Part::Main if kind.has_status() => keep(new, old, "status"),
            Part::Status => restore_all_but_status(new, old),
            _ => {}
        }
        let stored = old.get("metadata").and_then(Value::as_object);
        let metadata = new.metadata_mut();
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
        ] {
            match stored.and_then(|m| m.get(field)) {
                Some(value) => metadata.insert(field.to_owned(), value.clone()),
                None => metadata.remove(field),
            };
        }
        metadata.remove("selfLink");
    }

    fn prepare(&self, part: Part, old: &Object, new: &mut Object) {
        let strategy = self.kind().strategy;
        match part {
            Part::Main => strategy.prepare_update(new, old),
            Part::Status => strategy.prepare_status_update(new, old),
            Part::Subresource(name) => strategy.prepare_subresource(name, new, old, &self.now()),
        }
        // A binding is no change of what is wanted (upstream writes it past the strategy).
        if part == Part::Subresource("binding") {
            return;
        }
        if let Some(generation) = meta::raised_generation(new, old) {
            new.metadata_mut().insert("generation".to_owned(), generation.into());
        }
    }

    fn validate_change(&mut self, part: Part, old: &Object, new: &Object) -> Result<()> {
        let kind = self.kind();
        let mut errors = Errors::new();
        meta::validate(kind, new, &mut errors);
        meta::validate_update(new, old, &mut errors);
        match part {
            Part::Main => {
                kind.strategy.validate(new, &mut errors);
                kind.strategy.validate_update(new, old, &mut errors);
                self.warnings.extend(kind.strategy.warnings(new, Some(old)));
            }
            Part::Status => kind.strategy.validate_status_update(new, old, &mut errors),
            Part::Subresource(name) => {
                kind.strategy.validate(new, &mut errors);
                kind.strategy.validate_subresource(name, new, old, &mut errors);
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(self.invalid(new.name(), errors)) }
    }
}

fn name_mismatch(given: &str, wanted: &str) -> Status {
    Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({wanted})"))
}

/// Take one top-level field from the stored object.
fn keep(new: &mut Object, old: &Object, field: &str) {
    match old.get(field) {
        Some(value) => new.set_at(&[field], value.clone()),
        None => drop(new.remove_at(&[field])),
    }
}

/// A status write changes the status, labels, annotations, finalizers and managed fields; all else is the stored object's.
fn restore_all_but_status(new: &mut Object, old: &Object) {
    let mut result = old.clone();
    keep(&mut result, new, "status");
    let owners = old.at(&["metadata", "ownerReferences"]).cloned();
    keep(&mut result, new, "metadata");
    match owners {
        Some(owners) => result.set_at(&["metadata", "ownerReferences"], owners),
        None => drop(result.remove_at(&["metadata", "ownerReferences"])),
    }
    *new = result;
}

/// A deletion of exactly this state.
pub(super) fn delete_exactly(kv: &KeyValue) -> Txn {
    Txn {
        compare: vec![Compare::unchanged(kv.key.clone(), kv.mod_revision)],
        success: vec![Op::Delete(KeyRange::key(kv.key.clone()))],
        failure: vec![],
    }
}
