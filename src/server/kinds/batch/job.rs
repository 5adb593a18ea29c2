//! Job (`batch/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    subresources: &[STATUS],
    storage: "jobs",
    selectable: &["status.successful"],
    columns: &[
        Column::NAME,
        text("Status"),
        text("Completions"),
        text("Duration"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    strategy: &Job,
    ..Kind::BASE
};

struct Job;

impl Strategy for Job {
    fn default(&self, job: &mut Object) {
        defaults::template(job, &["spec", "template"]);
        default_labels(job);
        if let Some(spec) = child(job, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_create(&self, job: &mut Object) {
        generate_selector(job);
    }

    fn selectable_value(&self, job: &Object, field: &str) -> Option<String> {
        (field == "status.successful").then(|| number(job, &["status", "succeeded"]).to_string())
    }

    fn validate(&self, job: &Object, errors: &mut Errors) {
        check(job, errors, |job| {
            generated_selector(job);
            let spec = job.get("spec");
            validate_spec(&spec);
            let selector = spec.get("selector");
            if !selector.is_set() {
                return selector.required("");
            }
            rules::label_selector(&selector);
            let labels = spec.at(&["template", "metadata", "labels"]);
            let parsed = LabelSelector::from_object(Some(selector.value()));
            if parsed.is_ok_and(|s| !s.matches_labels(labels.value().as_object())) {
                rules::selector_mismatch(&labels);
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, validate_change);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        check(new, errors, |new| {
            for count in ["active", "succeeded", "failed", "ready", "terminating"] {
                new.at(&["status", count]).non_negative();
            }
        });
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        podspec::template_warnings(new)
    }

    fn row(&self, job: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(job, &["spec", "template", "spec"]);
        vec![
            job.name().into(),
            state(job).into(),
            completions(job).into(),
            duration(job, now).into(),
            age(job, now),
            names,
            images,
            selector(job.at(&["spec", "selector"])).into(),
        ]
    }
}

/// A job without labels takes its template's.
fn default_labels(job: &mut Object) {
    let labels = job.at(&["spec", "template", "metadata", "labels"]).and_then(Value::as_object).cloned();
    if let Some(labels) = labels.filter(|l| !l.is_empty())
        && job.labels().is_none_or(|l| l.is_empty())
    {
        job.set_at(&["metadata", "labels"], labels.into());
    }
}

fn default_spec(spec: &mut Value) {
    // Neither given: one pod, once. Parallelism alone: a work queue.
    if is_nil(spec, "completions") && is_nil(spec, "parallelism") {
        default_nil(spec, "completions", 1);
    }
    default_nil(spec, "parallelism", 1);
    let backoff = if is_nil(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    default_nil(spec, "backoffLimit", backoff);
    default_nil(spec, "completionMode", "NonIndexed");
    default_nil(spec, "suspend", false);
    default_nil(spec, "manualSelector", false);
    let replacement = if is_nil(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    default_nil(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in items(policy, "rules") {
            for pattern in items(rule, "onPodConditions") {
                default_zero(pattern, "status", "True");
            }
        }
    }
}

/// Labels that tie pods to their job: old and new names.
const JOB_LABELS: [(&str, &str); 4] = [
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
    ("controller-uid", "uid"),
    ("job-name", "name"),
];

/// Unless the user manages the selector: the job's UID selects its pods.
fn generate_selector(job: &mut Object) {
    if bool_at(job, &["spec", "manualSelector"]) {
        return;
    }
    let (uid, name) = (job.uid().to_owned(), job.name().to_owned());
    for (label, value) in JOB_LABELS {
        let value = if value == "uid" { &uid } else { &name };
        let path = ["spec", "template", "metadata", "labels", label];
        if job.at(&path).is_none() {
            job.set_at(&path, value.as_str().into());
        }
    }
    let path = ["spec", "selector", "matchLabels", JOB_LABELS[0].0];
    if job.at(&path).is_none() {
        job.set_at(&path, uid.into());
    }
}

fn state(job: &Object) -> &'static str {
    let is = |kind: &str| condition(job, kind) == "True";
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.is_deleting() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Object) -> String {
    let succeeded = number(job, &["status", "succeeded"]);
    match (int_at(job, &["spec", "completions"]), number(job, &["spec", "parallelism"])) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Object, now: i64) -> String {
    let time = |field: &str| crate::time::parse_seconds(job.str_at(&["status", field]));
    let Some(start) = time("startTime") else { return String::new() };
    crate::time::human_duration(time("completionTime").unwrap_or(now) - start)
}

/// An indexed job's pods have completion indexes as names: there are no more than this.
const MAX_INDEXED_PARALLELISM: i64 = 100_000;

/// The spec of a job, alone or in a CronJob's template.
pub fn validate_spec(spec: &View<'_>) {
    const COUNTS: [&str; 7] = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    COUNTS.iter().for_each(|field| spec.get(field).non_negative());
    let mode = spec.get("completionMode");
    mode.one_of_if_set(&["Indexed", "NonIndexed"]);
    if mode.str() == "Indexed" {
        if !spec.get("completions").is_set() {
            spec.get("completions").required("when completion mode is Indexed");
        }
        if spec.get("parallelism").number() > MAX_INDEXED_PARALLELISM {
            spec.get("parallelism").invalid(format!(
                "must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
            ));
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"].map(|f| spec.get(f)).iter().filter(|f| f.is_set()) {
            field.invalid("requires indexed completion mode");
        }
    }
    podspec::template(&spec.get("template"));
    let (restart, failures) = (spec.at(&["template", "spec", "restartPolicy"]), spec.get("podFailurePolicy"));
    match restart.str() {
        // Always is what no choice becomes: ask for one.
        "Always" => restart.required("valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        _ => restart.not_supported(&["OnFailure", "Never"]),
    }
    let replacement = spec.get("podReplacementPolicy");
    if failures.is_set() {
        if restart.str() != "Never" {
            restart.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        failure_policy(&failures);
        replacement.one_of_if_set(&["Failed"]);
    } else {
        replacement.one_of_if_set(&["Failed", "TerminatingOrFailed"]);
    }
}

fn failure_policy(policy: &View<'_>) {
    const MAX_RULES: usize = 20;
    let rules = policy.get("rules");
    if rules.len() > MAX_RULES {
        rules.too_many(MAX_RULES);
    }
    for rule in rules.items() {
        rule.get("action").require_one_of(&["Count", "FailIndex", "FailJob", "Ignore"]);
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"),
            (true, _) => {
                codes.get("operator").require_one_of(&["In", "NotIn"]);
                if codes.get("values").is_empty() {
                    codes.get("values").invalid("at least one value is required");
                }
            }
            _ => {}
        }
    }
}

/// The selector that [`generate_selector`] made must be the one that is there.
fn generated_selector(job: &View<'_>) {
    let spec = job.get("spec");
    if spec.get("manualSelector").is_true() || !spec.get("selector").is_set() {
        return;
    }
    let (uid, name) = (job.at(&["metadata", "uid"]), job.at(&["metadata", "name"]).str());
    if uid.is_empty() {
        uid.required("");
    }
    let labels = spec.at(&["template", "metadata", "labels"]);
    for (label, value) in JOB_LABELS {
        let value = if value == "uid" { uid.str() } else { name };
        let at = labels.get(label).named(labels.path().key(label));
        if !at.is_set() {
            at.required(&format!("must be '{value}'"));
        } else if at.str() != value {
            at.invalid_value(labels.value().clone(), format!("must be '{value}'"));
        }
    }
    let expected = |key: &str| {
        let label = JOB_LABELS.iter().find(|(label, _)| *label == key)?;
        Some(if label.1 == "uid" { uid.str() } else { name })
    };
    let selector = spec.get("selector");
    if LabelSelector::from_object(Some(selector.value())).is_ok_and(|s| !s.matches(expected)) {
        selector.invalid("`selector` not auto-generated");
    }
}

fn validate_change(new: &View<'_>, old: &View<'_>) {
    let (spec, former) = (new.get("spec"), old.get("spec"));
    let completions = spec.get("completions");
    // An elastic indexed job changes both numbers together.
    let elastic =
        spec.get("completionMode").str() == "Indexed" && completions.value() == spec.get("parallelism").value();
    if !elastic {
        completions.immutable(&former.get("completions"));
    }
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"] {
        spec.get(field).immutable(&former.get(field));
    }
    let (mut template, before) = (spec.get("template").value().clone(), former.get("template").value());
    let started = old.at(&["status", "startTime"]).is_set();
    if former.get("suspend").is_true() && !started {
        let (spec, before) = (&mut template["spec"], &before["spec"]);
        for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
            keep(spec, before, field);
        }
        if let Some(metadata) = child_or_new(&mut template, "metadata") {
            for field in ["labels", "annotations"] {
                keep(metadata, before.get("metadata").unwrap_or(&Value::Null), field);
            }
        }
    }
    if !same(Some(&template), Some(before)) {
        spec.get("template").invalid("field is immutable");
    }
}
