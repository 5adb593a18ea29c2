//! `metadata.managedFields`: entries to sets and back (KEP-555).

use super::Manager;
use super::fields::Set;
use crate::object::{Object, ObjectExt};
use serde_json::{Value, json};

/// More Update managers than this are squashed, oldest first, into one.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Whose fields: everything of an entry but time and fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
}

impl Id {
    pub fn new(manager: Manager<'_>, operation: Operation) -> Self {
        Id {
            manager: manager.name.to_owned(),
            operation,
            api_version: manager.api_version.to_owned(),
            subresource: manager.subresource.to_owned(),
        }
    }

    /// As upstream names a manager in conflicts: `"x" with subresource "status" using apps/v1`.
    pub fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub id: Id,
    pub time: String,
    pub set: Set,
}

/// All managers of one object.
#[derive(Clone, Debug, Default)]
pub struct Managers(pub Vec<Entry>);

impl Managers {
    /// Of an object; entries that make no sense are dropped.
    pub fn of(object: &Object) -> Self {
        let list = object.at(&["metadata", "managedFields"]).and_then(Value::as_array);
        Managers(list.into_iter().flatten().filter_map(decode).collect())
    }

    pub fn get(&self, id: &Id) -> Option<&Entry> {
        self.0.iter().find(|e| e.id == *id)
    }

    pub fn others(&self, id: &Id) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |e| e.id != *id)
    }

    /// Give a manager a set; an empty one ends it. The time moves only when the set changes.
    pub fn put(&mut self, id: Id, set: Set, now: &str) {
        if set.is_empty() {
            self.0.retain(|e| e.id != id);
            return;
        }
        match self.0.iter_mut().find(|e| e.id == id) {
            Some(entry) if entry.set == set => {}
            Some(entry) => {
                entry.set = set;
                entry.time = now.to_owned();
            }
            None => self.0.push(Entry { id, time: now.to_owned(), set }),
        }
    }

    /// Take paths away from everyone but `id`.
    pub fn take_from_others(&mut self, id: &Id, paths: &Set) {
        for entry in self.0.iter_mut().filter(|e| e.id != *id) {
            entry.set.subtract(paths);
        }
        self.0.retain(|e| !e.set.is_empty());
    }

    /// Write the entries into an object: Apply before Update, oldest first.
    pub fn write(mut self, object: &mut Object) {
        self.squash();
        if self.0.is_empty() {
            object.metadata_mut().remove("managedFields");
            return;
        }
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| {
                (
                    e.id.operation,
                    e.time.clone(),
                    e.id.manager.clone(),
                    e.id.api_version.clone(),
                    e.id.subresource.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        let list = self.0.iter().map(encode).collect();
        object.metadata_mut().insert("managedFields".to_owned(), Value::Array(list));
    }

    fn squash(&mut self) {
        let is_update = |e: &Entry| e.id.operation == Operation::Update && e.id.subresource.is_empty();
        let mut surplus = self.0.iter().filter(|e| is_update(e)).count().saturating_sub(MAX_UPDATE_MANAGERS);
        if surplus == 0 {
            return;
        }
        self.0.sort_by(|a, b| a.time.cmp(&b.time));
        let mut squashed: Vec<Entry> = Vec::new();
        let mut kept = Vec::new();
        // The squashed entry itself counts as one manager, so one more has to go.
        surplus += 1;
        for entry in std::mem::take(&mut self.0) {
            if surplus == 0 || !is_update(&entry) {
                kept.push(entry);
                continue;
            }
            surplus -= 1;
            match squashed.iter_mut().find(|s| s.id.api_version == entry.id.api_version) {
                Some(ancient) => {
                    ancient.set.union(&entry.set);
                    ancient.time = entry.time;
                }
                None => squashed.push(Entry { id: Id { manager: ANCIENT.to_owned(), ..entry.id }, ..entry }),
            }
        }
        self.0 = kept.into_iter().chain(squashed).collect();
    }
}

fn decode(entry: &Value) -> Option<Entry> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match entry.get("operation")?.as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let set = Set::from_wire(entry.get("fieldsV1")?);
    let id =
        Id { manager: text("manager"), operation, api_version: text("apiVersion"), subresource: text("subresource") };
    (!set.is_empty()).then(|| Entry { id, time: text("time"), set })
}

fn encode(entry: &Entry) -> Value {
    let operation = match entry.id.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut out = json!({
        "manager": entry.id.manager, "operation": operation, "apiVersion": entry.id.api_version,
        "fieldsType": "FieldsV1", "fieldsV1": entry.set.to_wire(),
    });
    for (key, value) in [("time", &entry.time), ("subresource", &entry.id.subresource)] {
        if !value.is_empty() {
            out[key] = Value::from(value.as_str());
        }
    }
    out
}
