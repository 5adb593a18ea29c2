//! Job (`batch/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
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
