//! Reading an object for validation: a value, where it is, and the list that errors go to.

use crate::field::{Errors, Path};
use crate::quantity::Quantity;
use serde_json::Value;
use std::cell::RefCell;

static ABSENT: Value = Value::Null;

/// A place in an object. What is absent or has another type reads as empty; the schema check came before.
#[derive(Clone)]
pub struct View<'a> {
    value: &'a Value,
    path: Path,
    errors: &'a RefCell<Errors>,
}

/// Run rules on an object.
pub fn check(object: &Value, errors: &mut Errors, rules: impl FnOnce(&View<'_>)) {
    let found = RefCell::new(std::mem::take(errors));
    rules(&View { value: object, path: Path::root(), errors: &found });
    *errors = found.into_inner();
}

/// Run rules on an object and its former state (whose errors are nobody's).
pub fn check_change(new: &Value, old: &Value, errors: &mut Errors, rules: impl FnOnce(&View<'_>, &View<'_>)) {
    let ignored = RefCell::new(Errors::new());
    check(new, errors, |new| rules(new, &View { value: old, path: Path::root(), errors: &ignored }));
}

impl<'a> View<'a> {
    pub fn value(&self) -> &'a Value {
        self.value
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sub(&self, value: &'a Value, path: Path) -> View<'a> {
        View { value, path, errors: self.errors }
    }

    pub fn get(&self, key: &str) -> View<'a> {
        self.sub(self.value.get(key).unwrap_or(&ABSENT), self.path.child(key))
    }

    pub fn at(&self, path: &[&str]) -> View<'a> {
        path.iter().fold(self.clone(), |view, key| view.get(key))
    }

    /// The same value under another path: some of upstream's paths are not where the field is.
    pub fn named(&self, path: Path) -> View<'a> {
        self.sub(self.value, path)
    }

    /// An item of a list, or an absent one.
    pub fn item(&self, i: usize) -> View<'a> {
        self.sub(self.value.get(i).unwrap_or(&ABSENT), self.path.index(i))
    }

    pub fn items(&self) -> impl Iterator<Item = View<'a>> + use<'a> {
        let this = self.clone();
        let items = self.value.as_array().map_or(&[] as &[Value], Vec::as_slice);
        items.iter().enumerate().map(move |(i, item)| this.sub(item, this.path.index(i)))
    }

    /// Key and value of a map's entries, at `path[key]`.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, View<'a>)> + use<'a> {
        let this = self.clone();
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(move |(key, value)| (key.as_str(), this.sub(value, this.path.key(key))))
    }

    pub fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The integer of a field that is no pointer: 0 where it is absent.
    pub fn number(&self) -> i64 {
        self.int().unwrap_or(0)
    }

    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    pub fn quantity(&self) -> Option<Quantity> {
        self.value.as_str()?.parse().ok()
    }

    /// There is a value (a Go pointer that is not nil).
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// No value, or an empty string, list or map.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a string, entries of a list or map; anything else that is set counts as one.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Null => 0,
            Value::String(s) => s.len(),
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 1,
        }
    }

    // What is wrong with it.

    pub fn required(&self, why: &str) {
        self.errors.borrow_mut().required(&self.path, why);
    }

    pub fn invalid(&self, why: impl std::fmt::Display) {
        self.errors.borrow_mut().invalid(&self.path, self.value.clone(), why);
    }

    /// The value shown is another than the one here.
    pub fn invalid_value(&self, value: impl Into<Value>, why: impl std::fmt::Display) {
        self.errors.borrow_mut().invalid(&self.path, value, why);
    }

    pub fn forbidden(&self, why: impl std::fmt::Display) {
        self.errors.borrow_mut().forbidden(&self.path, why);
    }

    pub fn duplicate(&self) {
        self.duplicate_value(self.value.clone());
    }

    pub fn duplicate_value(&self, value: impl Into<Value>) {
        self.errors.borrow_mut().duplicate(&self.path, value);
    }

    pub fn not_found(&self) {
        self.errors.borrow_mut().not_found(&self.path, self.value.clone());
    }

    pub fn not_supported(&self, supported: &[&str]) {
        let value = if self.is_set() { self.value.clone() } else { "".into() };
        self.errors.borrow_mut().not_supported(&self.path, value, supported);
    }

    pub fn too_long(&self, max_bytes: usize) {
        self.errors.borrow_mut().too_long(&self.path, max_bytes);
    }

    pub fn too_many(&self, max: usize) {
        self.errors.borrow_mut().too_many(&self.path, self.len(), max);
    }

    // Common rules.

    /// False, with an error, where it is empty.
    pub fn require(&self) -> bool {
        if self.is_empty() {
            self.required("");
        }
        !self.is_empty()
    }

    /// A name in some format.
    pub fn format(&self, rule: fn(&str) -> Result<(), String>) {
        if let Err(why) = rule(self.str()) {
            self.invalid_value(self.str(), why);
        }
    }

    /// [`View::format`] where it is not empty.
    pub fn format_if_set(&self, rule: fn(&str) -> Result<(), String>) {
        if !self.is_empty() {
            self.format(rule);
        }
    }

    /// A text in which several things may be wrong.
    pub fn formats(&self, rule: fn(&str) -> Vec<String>) {
        for why in rule(self.str()) {
            self.invalid_value(self.str(), why);
        }
    }

    /// One of these words.
    pub fn one_of(&self, words: &[&str]) {
        if !words.contains(&self.str()) {
            self.not_supported(words);
        }
    }

    /// Required, and one of these words.
    pub fn require_one_of(&self, words: &[&str]) {
        if self.require() {
            self.one_of(words);
        }
    }

    pub fn one_of_if_set(&self, words: &[&str]) {
        if self.is_set() {
            self.one_of(words);
        }
    }

    pub fn non_negative(&self) {
        if self.number() < 0 {
            self.invalid("must be greater than or equal to 0");
        }
    }

    pub fn in_range(&self, min: i64, max: i64) {
        if !(min..=max).contains(&self.number()) {
            self.invalid_value(self.number(), format!("must be between {min} and {max}, inclusive"));
        }
    }

    pub fn port(&self) {
        self.in_range(1, 65_535);
    }

    /// The field may not change once the object exists.
    pub fn immutable(&self, old: &View<'_>) {
        if !super::tree::same(Some(self.value), Some(old.value)) {
            self.invalid("field is immutable");
        }
    }
}
