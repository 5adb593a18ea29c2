//! Watches: initial events, store events, bookmarks, as a stream of frames (KEP-3157, KEP-956).
//!
//! A watch has no task and no queue of its own: the connection pulls. A client that does not read keeps nothing but
//! its place in the store's history.

mod frames;

pub use frames::Frames;

use crate::object::{Object, ObjectExt};
use crate::server::codec::{self, Accepted, EventType, Format, View};
use crate::server::kinds::Kind;
use crate::server::registry::{Call, Candidate, Registry, Selection, range_of};
use crate::server::request::options::ListOptions;
use crate::server::table::{self, Include};
use crate::server::{raw, registry};
use crate::status::{Result, Status};
use crate::store::{self, Event, EventKind, KeyRange, KeyValue, Revision, Watch, WatchMessage};
use crate::time;
use bytes::{Bytes, BytesMut};
use frames::Shared;
use futures::Stream;
use rand::RngExt;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch ends after a random time between this and twice this, unless it says otherwise (`--min-request-timeout`).
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// How long before its end a watch gets a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Frames joined into one write to the connection, at most; more follow in the next.
const CHUNK_BYTES: usize = 256 << 10;
/// Marks the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A started watch.
pub struct Watcher {
    registry: Arc<Registry>,
    kind: &'static Kind,
    selection: Selection,
    accepted: Accepted,
    include: Include,
    bookmarks: bool,
    /// The initial events still to be sent, if any were asked for.
    initial: Option<Initial>,
    events: Box<dyn Watch>,
    /// Everything up to here has been sent.
    revision: Revision,
    /// The next Table carries the column definitions.
    columns: bool,
    ticks: Interval,
    deadline: Instant,
    warned: bool,
    stop: CancellationToken,
    ended: bool,
}

/// The state at the start, sent as ADDED events.
struct Initial {
    pager: registry::Pager,
    page: Vec<KeyValue>,
    /// The client asked for a watch-list: a bookmark marks its end.
    marked: bool,
}

impl Watcher {
    /// Check the options, read the first page of the initial state if it is wanted, and start watching.
    pub async fn start(call: &Call, options: &ListOptions, accepted: Accepted, include: Include) -> Result<Self> {
        let kind = call.kind();
        let selection = Selection::new(kind, options)?;
        let registry = call.api.registry().clone();
        let current = registry.store().revision();
        if options.revision.is_some_and(|r| r > current) {
            return Err(registry::too_large_revision(current));
        }
        // Without a revision, or with 0, the state comes first; a watch-list says so itself.
        let from_state = options.revision.is_none_or(|r| r.0 == 0);
        let wants_state = options.send_initial_events.unwrap_or(from_state);
        let range = watched(kind, call.namespace(), selection.name());
        let (initial, from) = if wants_state {
            let mut pager = registry::Pager::new(
                registry.store().clone(),
                kind,
                call.namespace(),
                selection.name(),
                &ListOptions::default(),
            )?;
            let page = pager.page(registry::PAGE_OBJECTS).await?;
            let from = pager.snapshot();
            let marked = options.send_initial_events == Some(true) && options.bookmarks;
            (Some(Initial { pager, page, marked }), from)
        } else if from_state {
            (None, current)
        } else {
            (None, options.revision.unwrap_or(current))
        };
        let events = registry.store().watch(range, Some(Revision(from.0 + 1))).await.map_err(too_old)?;
        let seconds = options
            .timeout_seconds
            .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS));
        let mut ticks = tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watcher {
            registry,
            kind,
            selection,
            accepted,
            include,
            bookmarks: options.bookmarks,
            initial,
            events,
            revision: from,
            columns: true,
            ticks,
            deadline: Instant::now() + Duration::from_secs(seconds),
            warned: false,
            stop: call.api.stop_token(),
            ended: false,
        })
    }

    /// The frames, until the watch ends. Errors are frames too.
    pub fn frames(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut watcher| async move {
            let chunk = watcher.chunk().await?;
            Some((chunk, watcher))
        })
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        while !self.ended {
            let mut out = BytesMut::new();
            let step =
                if self.initial.is_some() { self.initial_events(&mut out).await } else { self.live(&mut out).await };
            if let Err(status) = step {
                self.ended = true;
                out.extend_from_slice(&self.error_frame(&status));
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
        None
    }

    /// One page of the initial state.
    async fn initial_events(&mut self, out: &mut BytesMut) -> Result<()> {
        let Some(mut initial) = self.initial.take() else { return Ok(()) };
        for kv in &initial.page {
            let candidate = Candidate::new(kv);
            if self.selection.matches(&candidate)
                && let Some(frame) = self.state_frame(candidate)
            {
                out.extend_from_slice(&frame);
            }
        }
        initial.page = initial.pager.page(registry::PAGE_OBJECTS).await?;
        if !initial.page.is_empty() {
            self.initial = Some(initial);
        } else if initial.marked {
            self.bookmark(out, true);
        }
        Ok(())
    }

    /// Wait for the next thing to happen and write what the client should see of it.
    async fn live(&mut self, out: &mut BytesMut) -> Result<()> {
        let last_bookmark = self.deadline.checked_sub(LAST_BOOKMARK).unwrap_or(self.deadline);
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => self.ended = true,
            message = self.events.next() => self.message(message.map_err(too_old)?, out).await?,
            _ = self.ticks.tick(), if self.bookmarks => self.events.request_progress(),
            () = tokio::time::sleep_until(last_bookmark), if self.bookmarks && !self.warned => {
                self.warned = true;
                self.events.request_progress();
            }
            () = tokio::time::sleep_until(self.deadline) => self.ended = true,
        }
        Ok(())
    }

    async fn message(&mut self, message: WatchMessage, out: &mut BytesMut) -> Result<()> {
        let mut message = Some(message);
        // Take what is there already into the same chunk.
        while let Some(next) = message.take() {
            match next {
                WatchMessage::Events(events) => {
                    for event in &events {
                        if let Some(frame) = self.event_frame(event) {
                            out.extend_from_slice(&frame);
                        }
                        self.revision = event.kv.mod_revision;
                    }
                }
                WatchMessage::Progress(revision) => {
                    self.revision = self.revision.max(revision);
                    self.bookmark(out, false);
                }
            }
            if out.len() < CHUNK_BYTES {
                message = futures::FutureExt::now_or_never(self.events.next()).transpose().map_err(too_old)?;
            }
        }
        Ok(())
    }

    /// The frame of an event for this client, if it concerns it.
    fn event_frame(&mut self, event: &Arc<Event>) -> Option<Bytes> {
        let shared = self.registry.frames.of(event, self.kind);
        let kind = self.event_type(&shared)?;
        let now_gone = kind == EventType::Deleted;
        if self.accepted.view == View::Object && !self.accepted.pretty {
            return shared.frame(kind, self.accepted.format, || self.shared_frame(&shared, kind));
        }
        let object = if now_gone { shared.previous(self.kind) } else { shared.current(self.kind) };
        let object = object.map(Arc::unwrap_or_clone).or_else(|| self.unknown_object(event))?;
        self.viewed_frame(kind, object)
    }

    /// What the event is to somebody who sees only the selected objects.
    fn event_type(&self, shared: &Shared) -> Option<EventType> {
        let event = &shared.event;
        let existed = event.previous.is_some() || event.kv.create_revision != event.kv.mod_revision;
        if self.selection.is_everything() {
            return Some(match event.kind {
                EventKind::Delete => EventType::Deleted,
                EventKind::Put if existed => EventType::Modified,
                EventKind::Put => EventType::Added,
            });
        }
        let matches_now =
            event.kind == EventKind::Put && self.selection.matches_shared(&event.kv, || shared.current(self.kind));
        let previous = event.previous.as_ref();
        let matched_before =
            previous.is_some_and(|kv| self.selection.matches_shared(kv, || shared.previous(self.kind)));
        match (matched_before, matches_now) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// A frame that every watcher of this kind and format gets alike.
    fn shared_frame(&self, shared: &Shared, event: EventType) -> Option<Bytes> {
        let gone = event == EventType::Deleted;
        if self.accepted.format == Format::Json && self.kind.conversion.is_none() {
            let kv = if gone { shared.event.previous.as_ref() } else { Some(&shared.event.kv) };
            if let Some(kv) = kv {
                return Some(json_frame(event, &kv.value, shared.event.kv.mod_revision));
            }
        }
        let object = if gone { shared.previous(self.kind) } else { shared.current(self.kind) };
        let object = object.or_else(|| self.unknown_object(&shared.event).map(Arc::new))?;
        codec::watch_frame(event, &object, self.accepted).ok()
    }

    /// A deleted object whose last state compaction has removed: name and revision are all that is left.
    fn unknown_object(&self, event: &Event) -> Option<Object> {
        let key = std::str::from_utf8(&event.kv.key).ok()?;
        let mut parts = key.rsplit('/');
        let name = parts.next()?;
        let mut object = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"name": name, "resourceVersion": event.kv.mod_revision.to_string()},
        });
        if self.kind.is_namespaced() {
            object.set_at(&["metadata", "namespace"], parts.next()?.into());
        }
        Some(object)
    }

    fn state_frame(&mut self, candidate: Candidate<'_>) -> Option<Bytes> {
        let plain = self.accepted.view == View::Object && self.accepted.format == Format::Json && !self.accepted.pretty;
        if plain && self.kind.conversion.is_none() {
            return Some(json_frame(EventType::Added, &candidate.kv.value, candidate.kv.mod_revision));
        }
        let object = candidate.into_object(self.kind).ok()?;
        self.viewed_frame(EventType::Added, object)
    }

    fn viewed_frame(&mut self, event: EventType, object: Object) -> Option<Bytes> {
        let now = time::now_seconds();
        let object = table::view_one(self.kind, object, self.accepted.view, self.include, self.columns, now);
        self.columns = false;
        codec::watch_frame(event, &object, self.accepted).ok()
    }

    /// A bookmark at the current place.
    fn bookmark(&mut self, out: &mut BytesMut, initial_events_end: bool) {
        let mut object = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": self.revision.to_string(), "creationTimestamp": null},
        });
        if initial_events_end {
            object.set_at(&["metadata", "annotations"], json!({INITIAL_EVENTS_END: "true"}));
        }
        let object = match self.accepted.view {
            View::Table(version) => json!({
                "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "columnDefinitions": [],
                "metadata": object["metadata"].clone(), "rows": [{"cells": [], "object": object}],
            }),
            view => table::view_one(self.kind, object, view, self.include, false, 0),
        };
        match codec::watch_frame(EventType::Bookmark, &object, self.accepted) {
            Ok(frame) => out.extend_from_slice(&frame),
            Err(error) => tracing::warn!(%error, "cannot encode a bookmark"),
        }
    }

    fn error_frame(&self, status: &Status) -> Bytes {
        codec::watch_frame(EventType::Error, &status.to_object(), self.accepted).unwrap_or_default()
    }
}

/// The keys that a watch looks at.
fn watched(kind: &Kind, namespace: &str, name: Option<&str>) -> KeyRange {
    let range = range_of(kind, namespace);
    match name {
        Some(name) if !kind.is_namespaced() || !namespace.is_empty() => {
            KeyRange::key([&range.start[..], name.as_bytes()].concat())
        }
        _ => range,
    }
}

/// A frame from stored bytes.
fn json_frame(event: EventType, value: &[u8], revision: Revision) -> Bytes {
    let mut object = Vec::with_capacity(raw::spliced_len(value));
    raw::splice(&mut object, value, revision);
    codec::watch_frame_json(event, &object)
}

/// What a watch is told when the store ends it.
fn too_old(error: store::Error) -> Status {
    match error {
        store::Error::Compacted(oldest) => Status::expired(format!("too old resource version: (oldest is {oldest})")),
        other => registry::store_error(other),
    }
}
