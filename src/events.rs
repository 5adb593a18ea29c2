//! The event recorder: core/v1 Events for people who run `kubectl describe` and `kubectl get events`.
//!
//! Recording never blocks and never fails the caller: a bounded queue, one writer. Equal events become one object
//! whose `count` rises; many similar ones become one "(combined from similar events)"; an object that produces too
//! many is throttled (the rules of upstream's event correlator, `k8s.io/client-go/tools/record`).

use crate::task::Group;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::debug;

/// Events waiting to be written; when full, new ones are dropped (and logged).
const QUEUE_EVENTS: usize = 1024;
/// Remembered series (equal events) per recorder; when full, the one quiet for longest is forgotten.
const REMEMBERED: usize = 4096;
/// Similar events (all but the message equal) within [`SIMILAR_WINDOW`] before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";
/// Token bucket per object: burst, and the time that earns one more.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Tries to write one event when the server is away, one [`RETRY_PAUSE`] apart; then it is dropped.
const TRIES: u32 = 12;
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// `Event.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Normal,
    Warning,
}

pub use Type::{Normal, Warning};

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Normal => "Normal",
            Warning => "Warning",
        }
    }
}

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

#[derive(Clone, Debug)]
struct Note {
    about: ObjectReference,
    kind: Type,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// `component` as `kubectl describe` shows it ("kubelet", "default-scheduler"); `node` where it runs, or "".
    /// The writer runs in `group`.
    pub fn new(client: Client, component: &str, node: &str, group: &Group) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE_EVENTS);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: Some(node.to_owned()).filter(|n| !n.is_empty()),
        };
        group.spawn("events", write_all(client, source, notes));
        Recorder { queue }
    }

    /// A recorder for tests: what was recorded comes out as "Type Reason message".
    #[cfg(test)]
    pub fn probe() -> (Self, impl FnMut() -> Vec<String>) {
        let (queue, mut notes) = mpsc::channel(QUEUE_EVENTS);
        let drain = move || {
            std::iter::from_fn(|| notes.try_recv().ok())
                .map(|n: Note| format!("{} {} {}", n.kind.as_str(), n.reason, n.message))
                .collect()
        };
        (Recorder { queue }, drain)
    }

    /// Record something that happened to an object.
    pub fn event(&self, about: &ObjectReference, kind: Type, reason: &str, message: impl Into<String>) {
        let (reason, message) = (reason.to_owned(), message.into());
        let note = Note { about: about.clone(), kind, reason, message, at: crate::time::now() };
        if let Err(error) = self.queue.try_send(note) {
            debug!(%error, "event dropped");
        }
    }
}

async fn write_all(client: Client, source: EventSource, mut notes: mpsc::Receiver<Note>) {
    let mut correlator = Correlator::default();
    while let Some(note) = notes.recv().await {
        let Some(wanted) = correlator.admit(note) else { continue };
        for _ in 0..TRIES {
            match write(&client, &source, &wanted).await {
                Ok(name) => {
                    correlator.written(&wanted, name);
                    break;
                }
                Err(kube::Error::Api(status)) if status.is_not_found() && wanted.name.is_some() => {
                    // It expired meanwhile: start a new series at the next try.
                    correlator.forget(&wanted);
                    let fresh = Wanted { name: None, ..wanted.clone() };
                    if let Ok(name) = write(&client, &source, &fresh).await {
                        correlator.written(&fresh, name);
                    }
                    break;
                }
                Err(kube::Error::Api(status)) => {
                    debug!(%status, reason = wanted.note.reason, "event refused");
                    break;
                }
                Err(error) => debug!(%error, "event not written yet"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Make or update the Event; gives its name.
async fn write(client: &Client, source: &EventSource, wanted: &Wanted) -> kube::Result<String> {
    let note = &wanted.note;
    let namespace = note.about.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    if let Some(name) = &wanted.name {
        let change =
            serde_json::json!({"count": wanted.count, "lastTimestamp": Time(note.at), "message": note.message});
        api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        return Ok(name.clone());
    }
    let object = note.about.name.as_deref().unwrap_or("unknown");
    let name = format!("{object}.{:x}", note.at.as_nanosecond());
    let event = Event {
        metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace.to_owned()), ..Default::default() },
        involved_object: note.about.clone(),
        type_: Some(note.kind.as_str().to_owned()),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        count: Some(wanted.count),
        first_timestamp: Some(Time(wanted.first)),
        last_timestamp: Some(Time(note.at)),
        ..Default::default()
    };
    api.create(&PostParams::default(), &event).await?;
    Ok(name)
}

/// A note after correlation: which Event to make (`name` None) or to update.
#[derive(Clone, Debug)]
struct Wanted {
    note: Note,
    name: Option<String>,
    count: i32,
    first: Timestamp,
}

type ObjectId = (String, String, String);
type SimilarId = (ObjectId, Type, String);
type SeriesId = (SimilarId, String);

/// Decides what becomes of a note. Pure: the time is the note's.
#[derive(Default)]
struct Correlator {
    series: HashMap<SeriesId, Series>,
    similar: HashMap<SimilarId, Similar>,
    buckets: HashMap<ObjectId, Bucket>,
}

struct Series {
    name: Option<String>,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

/// Seconds from `earlier` to `later`, never negative.
fn seconds(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64().max(0.0)
}

/// Drop the entry that has been quiet for longest when a table is full.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>, last: impl Fn(&V) -> Timestamp) {
    if table.len() >= REMEMBERED {
        let oldest = table.iter().min_by_key(|(_, v)| last(v)).map(|(k, _)| k.clone());
        oldest.map(|k| table.remove(&k));
    }
}

impl Correlator {
    fn object_id(note: &Note) -> ObjectId {
        let about = &note.about;
        let uid = about.uid.clone().unwrap_or_default();
        (about.kind.clone().unwrap_or_default(), format!("{:?}/{:?}", about.namespace, about.name), uid)
    }

    fn similar_id(note: &Note) -> SimilarId {
        // Containers of one pod are told apart by the field path.
        let (kind, name, uid) = Self::object_id(note);
        let path = note.about.field_path.clone().unwrap_or_default();
        ((kind, name + &path, uid), note.kind, note.reason.clone())
    }

    fn series_id(note: &Note) -> SeriesId {
        let message = if note.message.starts_with(COMBINED) { COMBINED } else { &note.message };
        (Self::similar_id(note), message.to_owned())
    }

    /// None: throttled.
    fn admit(&mut self, mut note: Note) -> Option<Wanted> {
        self.combine(&mut note);
        if !self.take_token(&note) {
            return None;
        }
        let id = Self::series_id(&note);
        make_room(&mut self.series, |s| s.last);
        let fresh = Series { name: None, count: 0, first: note.at, last: note.at };
        let series = self.series.entry(id).or_insert(fresh);
        series.count = series.count.saturating_add(1);
        series.last = note.at;
        Some(Wanted { name: series.name.clone(), count: series.count, first: series.first, note })
    }

    /// Replace the message once too many different ones came for the same thing.
    fn combine(&mut self, note: &mut Note) {
        make_room(&mut self.similar, |s| s.last);
        let fresh = Similar { messages: Vec::new(), last: note.at };
        let similar = self.similar.entry(Self::similar_id(note)).or_insert(fresh);
        if seconds(similar.last, note.at) > SIMILAR_WINDOW.as_secs_f64() {
            similar.messages.clear();
        }
        similar.last = note.at;
        if !similar.messages.contains(&note.message) {
            if similar.messages.len() >= SIMILAR_MAX {
                note.message = format!("{COMBINED}{}", note.message);
                return;
            }
            similar.messages.push(note.message.clone());
        }
    }

    fn take_token(&mut self, note: &Note) -> bool {
        make_room(&mut self.buckets, |b| b.last);
        let bucket = self.buckets.entry(Self::object_id(note)).or_insert(Bucket { tokens: BURST, last: note.at });
        let earned = seconds(bucket.last, note.at) / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        bucket.last = note.at;
        let paid = bucket.tokens >= 1.0;
        bucket.tokens -= if paid { 1.0 } else { 0.0 };
        paid
    }

    fn written(&mut self, wanted: &Wanted, name: String) {
        if let Some(series) = self.series.get_mut(&Self::series_id(&wanted.note)) {
            series.name = Some(name);
        }
    }

    fn forget(&mut self, wanted: &Wanted) {
        if let Some(series) = self.series.get_mut(&Self::series_id(&wanted.note)) {
            (series.name, series.count, series.first) = (None, 1, wanted.note.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str, second: i64) -> Note {
        let about = ObjectReference { kind: Some("Pod".into()), name: Some("p".into()), ..Default::default() };
        let at = Timestamp::from_second(1_800_000_000 + second).unwrap();
        Note { about, kind: Normal, reason: "Pulled".into(), message: message.into(), at }
    }

    #[test]
    fn equal_events_are_one_series() {
        let mut correlator = Correlator::default();
        let first = correlator.admit(note("m", 0)).unwrap();
        assert_eq!((first.name.clone(), first.count), (None, 1));
        correlator.written(&first, "p.1".into());
        let second = correlator.admit(note("m", 5)).unwrap();
        assert_eq!((second.name.as_deref(), second.count, second.first), (Some("p.1"), 2, first.note.at));
        assert_eq!(correlator.admit(note("other", 6)).unwrap().name, None);
    }

    #[test]
    fn many_messages_are_combined_and_floods_are_throttled() {
        let mut correlator = Correlator::default();
        let told: Vec<_> = (0..40).map(|n| correlator.admit(note(&n.to_string(), n))).collect();
        let admitted: Vec<_> = told.iter().flatten().map(|w| w.note.message.as_str()).collect();
        assert_eq!(admitted.len(), BURST as usize);
        assert_eq!(admitted[9], "9");
        assert_eq!(admitted[10], "(combined from similar events): 10");
        let later = correlator.admit(note("x", 40 + REFILL.as_secs() as i64)).unwrap();
        assert_eq!(later.note.message, "(combined from similar events): x");
    }
}
