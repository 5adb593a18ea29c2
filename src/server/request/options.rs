//! The options of reads and writes, from the query and (DELETE) the body: upstream's `metav1` option types, checked.

use super::Query;
use crate::field::{Errors, Path};
use crate::object::Object;
use crate::selector::{FieldSelector, LabelSelector};
use crate::server::schema::check::FieldValidation;
use crate::status::{Result, Status};
use crate::store::Revision;
use serde_json::Value;

/// `resourceVersionMatch`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// None: not given ("most recent"). `Some(Revision(0))`: any.
    pub revision: Option<Revision>,
    pub revision_match: Match,
    /// 0: no limit.
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<Self> {
        let labels = LabelSelector::parse(query.get("labelSelector"));
        let labels = labels.map_err(|e| Status::bad_request(format!("unable to parse requirement: {e}")))?;
        let fields = FieldSelector::parse(query.get("fieldSelector")).map_err(Status::bad_request)?;
        let number = |key: &str| match query.get(key) {
            "" => Ok(None),
            text => text.parse::<i64>().map(Some).map_err(|_| Status::bad_request(format!("invalid {key} {text:?}"))),
        };
        let mut errors = Errors::new();
        let revision_match = match query.get("resourceVersionMatch") {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            other => {
                let supported = ["Exact", "NotOlderThan"];
                errors.not_supported(&Path::new("resourceVersionMatch"), other, &supported);
                Match::Unset
            }
        };
        let flag = |key| query.find(key).filter(|v| !v.is_empty()).map(|_| query.flag(key));
        let options = ListOptions {
            labels,
            fields,
            revision: parse_revision(query.get("resourceVersion"))?,
            revision_match,
            limit: number("limit")?.unwrap_or(0).max(0) as usize,
            continue_token: query.get("continue").to_owned(),
            timeout_seconds: number("timeoutSeconds")?.filter(|s| *s > 0).map(|s| s as u64),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: flag("sendInitialEvents"),
        };
        if watch {
            options.check_watch(&mut errors)
        } else {
            options.check_list(&mut errors)
        }
        if errors.is_empty() { Ok(options) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", errors)) }
    }

    fn check_list(&self, errors: &mut Errors) {
        let path = Path::new("resourceVersionMatch");
        if self.send_initial_events.is_some() {
            errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        }
        if self.revision_match == Match::Unset {
            return;
        }
        if self.revision.is_none() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !self.continue_token.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if self.revision_match == Match::Exact && self.revision == Some(Revision(0)) {
            errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }

    fn check_watch(&self, errors: &mut Errors) {
        let path = Path::new("resourceVersionMatch");
        match self.send_initial_events {
            None if self.revision_match != Match::Unset => {
                errors.forbidden(
                    &path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            Some(_) if self.revision_match != Match::NotOlderThan => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.forbidden(&path, why);
            }
            _ => {}
        }
    }
}

fn parse_revision(text: &str) -> Result<Option<Revision>> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |_| {
        let mut errors = Errors::new();
        errors.invalid(
            &Path::new("resourceVersion"),
            text,
            format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        );
        Status::bad_request(format!("Invalid value: {text:?}: {errors}"))
    };
    text.parse().map(|n| Some(Revision(n))).map_err(bad)
}

/// The `resourceVersion` of a GET.
pub fn get_revision(query: &Query) -> Result<Option<Revision>> {
    parse_revision(query.get("resourceVersion"))
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub validation: FieldValidation,
    /// Server-side apply takes over fields of others.
    pub force: bool,
}

/// Longest `fieldManager`, in bytes.
const MAX_FIELD_MANAGER_BYTES: usize = 128;

impl WriteOptions {
    /// `what` names the options in errors: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub fn parse(query: &Query, what: &str) -> Result<Self> {
        let mut errors = Errors::new();
        let dry_run = query.all("dryRun").collect::<Vec<_>>();
        check_dry_run(&dry_run, &mut errors);
        let field_manager = query.get("fieldManager").to_owned();
        if field_manager.len() > MAX_FIELD_MANAGER_BYTES {
            errors.too_long(&Path::new("fieldManager"), MAX_FIELD_MANAGER_BYTES);
        }
        if field_manager.chars().any(char::is_control) {
            errors.invalid(
                &Path::new("fieldManager"),
                field_manager.as_str(),
                "should only contain printable characters",
            );
        }
        let validation = query.get("fieldValidation");
        let parsed = FieldValidation::parse(validation);
        if parsed.is_none() {
            errors.not_supported(&Path::new("fieldValidation"), validation, &["Ignore", "Strict", "Warn"]);
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", what, "", errors));
        }
        let dry_run = dry_run.contains(&"All");
        Ok(WriteOptions { dry_run, field_manager, validation: parsed.unwrap_or_default(), force: query.flag("force") })
    }
}

fn check_dry_run(values: &[&str], errors: &mut Errors) {
    for value in values.iter().filter(|v| !v.is_empty() && **v != "All") {
        errors.not_supported(&Path::new("dryRun"), *value, &["All"]);
    }
}

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `metav1.DeleteOptions`, from the body and the query.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_seconds: Option<u64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// `body` is null where there was none.
    pub fn parse(query: &Query, body: &Object) -> Result<Self> {
        let mut errors = Errors::new();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
        let mut dry_run: Vec<&str> = query.all("dryRun").collect();
        dry_run.extend(body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
        check_dry_run(&dry_run, &mut errors);
        let policy = text(body.get("propagationPolicy")).or_else(|| text(Some(&query.get("propagationPolicy").into())));
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let orphan = orphan.or_else(|| query.find("orphanDependents").map(|_| query.flag("orphanDependents")));
        if orphan.is_some() && policy.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid(&Path::new("propagationPolicy"), policy.clone().unwrap_or_default(), why);
        }
        let propagation = match (policy.as_deref(), orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), _) => {
                errors.not_supported(
                    &Path::new("propagationPolicy"),
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                );
                None
            }
            (None, None) => None,
        };
        let grace = body.get("gracePeriodSeconds").and_then(Value::as_i64);
        let grace = grace.or_else(|| query.get("gracePeriodSeconds").parse().ok());
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", errors));
        }
        let preconditions = body.get("preconditions");
        Ok(DeleteOptions {
            dry_run: dry_run.contains(&"All"),
            // A negative grace means one second, as upstream has it for pods.
            grace_seconds: grace.map(|g| if g < 0 { 1 } else { g as u64 }),
            uid: text(preconditions.and_then(|p| p.get("uid"))),
            resource_version: text(preconditions.and_then(|p| p.get("resourceVersion"))),
            propagation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_options() {
        // query, watch, code of the refusal (0: fine)
        let cases = [
            ("", false, 0),
            ("resourceVersion=5&resourceVersionMatch=Exact", false, 0),
            ("resourceVersionMatch=Exact", false, 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", false, 422),
            ("resourceVersion=5&resourceVersionMatch=Sometimes", false, 422),
            ("resourceVersion=5&resourceVersionMatch=Exact&continue=x", false, 422),
            ("sendInitialEvents=true", false, 422),
            ("sendInitialEvents=true", true, 422),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, 0),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=4", true, 422),
            ("labelSelector=a%20in", false, 400),
            ("fieldSelector=x", false, 400),
            ("resourceVersion=x", false, 400),
            ("limit=x", false, 400),
        ];
        for (query, watch, code) in cases {
            let got = ListOptions::parse(&Query::parse(query), watch);
            assert_eq!(got.err().map_or(0, |s| s.code()), code, "{query}");
        }
    }

    #[test]
    fn delete_options() {
        let body = serde_json::json!({"propagationPolicy": "Foreground", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}});
        let options = DeleteOptions::parse(&Query::parse("dryRun=All"), &body).unwrap();
        assert_eq!((options.propagation, options.grace_seconds), (Some(Propagation::Foreground), Some(0)));
        assert!(options.dry_run && options.uid.as_deref() == Some("u"));
        let both = serde_json::json!({"propagationPolicy": "Orphan", "orphanDependents": true});
        assert_eq!(DeleteOptions::parse(&Query::default(), &both).unwrap_err().code(), 422);
        assert_eq!(DeleteOptions::parse(&Query::parse("dryRun=Some"), &Value::Null).unwrap_err().code(), 422);
    }
}
