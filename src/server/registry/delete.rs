//! Delete and deletecollection: preconditions, propagation, grace, finalizers.

use super::change::delete_exactly;
use super::{Answer, Call, parse, store_form};
use crate::object::{Object, ObjectExt};
use crate::server::admission::Operation;
use crate::server::allocation;
use crate::server::codec::View;
use crate::server::kinds::Grace;
use crate::server::request::options::{DeleteOptions, Propagation};
use crate::server::table::{self, Include};
use crate::status::{self, Reason, Result, Status, Success};
use crate::store::{Compare, KeyValue, Op, Txn};
use crate::time;
use serde_json::{Value, json};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const MAX_CONFLICT_ATTEMPTS: usize = 16;

/// What a DELETE does to the stored object.
#[derive(Debug, PartialEq)]
enum Plan {
    Remove,
    /// Write this instead: deletion has begun and waits.
    Mark(Object),
    /// Deletion goes on as it is.
    Leave,
}

impl Call {
    pub async fn delete(&mut self, name: &str, options: &DeleteOptions) -> Result<Answer> {
        self.write.dry_run = options.dry_run;
        let mut admitted = false;
        for _ in 0..MAX_CONFLICT_ATTEMPTS {
            let (kv, old) = self.load(name).await?;
            self.check_preconditions(&old, options)?;
            if !admitted {
                self.admit(Operation::Delete, None, Some(&old)).await?;
                self.check(Operation::Delete, None, Some(&old)).await?;
                admitted = true;
            }
            let answer = match self.plan_deletion(&old, options, time::now_seconds()) {
                Plan::Leave => Some(Answer::of(old)),
                Plan::Remove if options.dry_run => Some(self.deleted(old)),
                Plan::Remove => self.remove(&kv, old.clone(), &old).await?.map(|answer| self.deleted(answer.object)),
                Plan::Mark(new) => self.mark(&kv, new, options).await?,
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        Err(Status::modified(self.kind().group, self.kind().plural, name))
    }

    fn check_preconditions(&self, old: &Object, options: &DeleteOptions) -> Result<()> {
        let kind = self.kind();
        let refuse = |what: &str, wanted: &str, found: &str| {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            Err(Status::conflict(kind.group, kind.plural, old.name(), why))
        };
        match (&options.uid, &options.resource_version) {
            (Some(uid), _) if uid != old.uid() => refuse("UID", uid, old.uid()),
            (_, Some(revision)) if revision != old.resource_version() => {
                refuse("ResourceVersion", revision, old.resource_version())
            }
            _ => Ok(()),
        }
    }

    /// Decide without acting: `now` in Unix seconds.
    fn plan_deletion(&self, old: &Object, options: &DeleteOptions, now: i64) -> Plan {
        let strategy = self.kind().strategy;
        let grace = match strategy.grace(old, options.grace_seconds) {
            Grace::Immediate => None,
            Grace::Seconds(seconds) => Some(seconds),
        };
        let mut new = old.clone();
        if let (true, Some(_)) = (old.is_deleting(), grace) {
            let Some(before) = old.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_u64) else {
                return self.finish(new, None, options, now);
            };
            // A pending grace period can only become shorter.
            return match options.grace_seconds {
                Some(asked) if asked < before => self.finish(new, Some(asked), options, now),
                _ => Plan::Leave,
            };
        }
        set_finalizers(&mut new, options.propagation);
        self.finish(new, grace, options, now)
    }

    /// Mark `new` as being deleted, or find that it can go at once.
    fn finish(&self, mut new: Object, grace: Option<u64>, _options: &DeleteOptions, now: i64) -> Plan {
        let held = !new.finalizers().is_empty() || self.kind().strategy.holds_deletion(&new);
        let seconds = grace.unwrap_or(0);
        if !held && seconds == 0 {
            return Plan::Remove;
        }
        let was_deleting = new.is_deleting();
        let shortened = was_deleting && grace.is_some();
        if !was_deleting || shortened {
            let from = if shortened { deletion_began(&new) } else { now };
            let at = jiff::Timestamp::from_second(from + seconds as i64).unwrap_or_else(|_| time::now());
            let generation = new.at(&["metadata", "generation"]).and_then(Value::as_i64).filter(|g| *g > 0);
            let metadata = new.metadata_mut();
            metadata.insert("deletionTimestamp".to_owned(), time::rfc3339(at).into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
            if let (Some(generation), false) = (generation, was_deleting) {
                metadata.insert("generation".to_owned(), (generation + 1).into());
            }
            self.kind().strategy.prepare_delete(&mut new);
        }
        Plan::Mark(new)
    }

    /// Write a deletion mark. None: somebody else wrote meanwhile.
    async fn mark(&self, kv: &KeyValue, mut new: Object, options: &DeleteOptions) -> Result<Option<Answer>> {
        let waits = options.propagation == Some(Propagation::Foreground);
        let success = if waits { Success::Accepted } else { Success::Ok };
        let value = store_form(self.kind(), &new)?;
        if options.dry_run || value == kv.value {
            return Ok(Some(Answer { success, object: new, stored: None }));
        }
        let txn = Txn {
            compare: vec![Compare::unchanged(kv.key.clone(), kv.mod_revision)],
            success: vec![Op::put(kv.key.clone(), value.clone())],
            failure: vec![],
        };
        let done = self.api.registry().store().txn(txn).await.map_err(super::store_error)?;
        if !done.succeeded {
            return Ok(None);
        }
        new.metadata_mut().insert("resourceVersion".to_owned(), done.revision.to_string().into());
        Ok(Some(Answer { success, object: new, stored: Some((value, done.revision)) }))
    }

    /// Deletion has begun and nothing holds the object any more.
    pub(super) fn is_finished(&self, object: &Object) -> bool {
        let grace = object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
        object.is_deleting()
            && grace == 0
            && object.finalizers().is_empty()
            && !self.kind().strategy.holds_deletion(object)
    }

    /// Take an object out of the store, with what it had allocated. `last` is the state to answer with, `stored` the
    /// one in the store. None: somebody else wrote meanwhile.
    pub(super) async fn remove(&self, kv: &KeyValue, last: Object, stored: &Object) -> Result<Option<Answer>> {
        let mut txn = delete_exactly(kv);
        allocation::plan(self, Some(stored), None).await?.add_to(&mut txn);
        let done = self.api.registry().store().txn(txn).await.map_err(super::store_error)?;
        if !done.succeeded {
            return Ok(None);
        }
        let mut object = last;
        object.metadata_mut().insert("resourceVersion".to_owned(), done.revision.to_string().into());
        Ok(Some(Answer::of(object)))
    }

    /// The answer to an immediate deletion.
    fn deleted(&self, object: Object) -> Answer {
        let kind = self.kind();
        if kind.returns_deleted() {
            return Answer::of(object);
        }
        Answer::of(status::success(kind.group, kind.plural, object.name(), object.uid()))
    }

    /// Delete these objects one after the other; answers with a list of what they were.
    pub async fn delete_collection(&mut self, items: Vec<KeyValue>, options: &DeleteOptions) -> Result<Answer> {
        let kind = self.kind();
        let mut gone = Vec::with_capacity(items.len());
        for kv in items {
            let object = parse(kind, &kv.value, kv.mod_revision)?;
            let mut one = self.clone();
            let mut info = (*self.info).clone();
            object.namespace().clone_into(&mut info.namespace);
            object.name().clone_into(&mut info.name);
            one.info = std::sync::Arc::new(info);
            let options = DeleteOptions { uid: Some(object.uid().to_owned()), ..options.clone() };
            match one.delete(object.name(), &options).await {
                Ok(_) => gone.push(object),
                // Gone or replaced meanwhile: not ours to delete any more.
                Err(status) if status.is(Reason::NotFound) || status.is(Reason::Conflict) => {}
                Err(status) => return Err(status),
            }
        }
        let list_meta = json!({"resourceVersion": self.api.registry().store().revision().to_string()});
        let item = |object| table::item(kind, object, View::Object, Include::None, 0);
        Ok(Answer::of(table::list(kind, list_meta, gone.into_iter().map(item).collect(), View::Object)))
    }
}

/// When a graceful deletion began, in Unix seconds.
fn deletion_began(object: &Object) -> i64 {
    let at = time::parse_seconds(object.str_at(&["metadata", "deletionTimestamp"])).unwrap_or(0);
    at - object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0)
}

/// The garbage collector's finalizers as the propagation policy wants them; unasked they stay.
fn set_finalizers(object: &mut Object, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
    let before = finalizers.clone();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    if finalizers.is_empty() {
        object.metadata_mut().remove("finalizers");
    } else if finalizers != before {
        object.metadata_mut().insert("finalizers".to_owned(), finalizers.into());
    }
}
