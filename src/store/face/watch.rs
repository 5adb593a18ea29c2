//! Service Watch: many watches on one stream.
//!
//! One task per stream takes requests and the messages of its watches, and fills a short queue of answers. While the
//! client does not take them, nothing is asked of the watches, which hold no events: what they have missed they read from
//! the ring or from history later.

use super::answer::{COMPACTED, from_error, header};
use super::kv::key_value;
use super::{Face, Incoming};
use crate::store::proto::{self, FilterType, RequestUnion, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::store::{Error, Event, EventKind, KeyRange, Revision, Store, Watch, WatchMessage};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Answers that wait for the client. When full, the stream's watches wait.
const QUEUE: usize = 2;

/// Watches on one stream, about 1 KiB of memory each. When full, a further one is cancelled with a reason.
const MAX_WATCHES: usize = 50_000;

/// Bytes of events in one answer, rounded up to whole revisions; parts of one revision in a fragment.
const ANSWER_BYTES: usize = 256 << 10;

/// Answers that concern no watch, or all.
const NO_WATCH: i64 = -1;

type Answers = mpsc::Sender<Result<WatchResponse, Status>>;

/// Answer a stream of requests.
pub fn watch(
    face: &Face,
    requests: Incoming<WatchRequest>,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<> {
    let (answers, queue) = mpsc::channel(QUEUE);
    let (store, interval) = (face.store.clone(), face.progress_interval);
    face.group.spawn("etcd-watch", async move {
        let run = Session::new(store, answers.clone()).run(requests, interval);
        let ended = tokio::select! {
            ended = run => ended,
            () = answers.closed() => Err(Gone),
        };
        // The client has gone, or has said that it is done.
        drop(ended);
    });
    ReceiverStream::new(queue)
}

/// The client takes no more answers.
struct Gone;

struct Session {
    store: Arc<dyn Store>,
    answers: Answers,
    watches: HashMap<i64, Arc<Control>>,
    running: FuturesUnordered<BoxFuture<'static, Outcome>>,
    last_id: i64,
    /// Progress that was asked for: watches that have not answered yet, and the least revision of those that have.
    asked: Option<(usize, Revision)>,
}

/// What the stream has to know of a watch, and to tell it, while it waits.
struct Control {
    options: Options,
    told: Notify,
    cancelled: AtomicBool,
    /// Progress is wanted for all of the stream; by this watch for itself.
    wanted_by_all: AtomicBool,
    wanted: AtomicBool,
    /// It has had events since the last interval.
    busy: AtomicBool,
}

struct Options {
    id: i64,
    progress_notify: bool,
    previous: bool,
    fragment: bool,
    no_put: bool,
    no_delete: bool,
}

/// One step of a watch.
enum Outcome {
    Message(Box<dyn Watch>, Arc<Control>, WatchMessage),
    Failed(Arc<Control>, Error),
    Cancelled,
}

impl Session {
    fn new(store: Arc<dyn Store>, answers: Answers) -> Self {
        let (watches, running) = (HashMap::new(), FuturesUnordered::new());
        Session { store, answers, watches, running, last_id: -1, asked: None }
    }

    async fn run(mut self, mut requests: Incoming<WatchRequest>, interval: Duration) -> Result<(), Gone> {
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.reset();
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request).await?,
                    Ok(None) | Err(_) => return Ok(()),
                },
                Some(outcome) = self.running.next(), if !self.running.is_empty() => self.outcome(outcome).await?,
                _ = interval.tick() => self.interval(),
            }
        }
    }

    async fn send(&mut self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    fn answer(&self, id: i64) -> WatchResponse {
        WatchResponse { header: header(self.store.revision()), watch_id: id, ..WatchResponse::default() }
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::Create(create)) => self.create(create).await,
            Some(RequestUnion::Cancel(cancel)) => match self.watches.remove(&cancel.watch_id) {
                Some(control) => {
                    self.forget(&control);
                    control.cancelled.store(true, Ordering::Relaxed);
                    control.told.notify_one();
                    self.send(WatchResponse { canceled: true, ..self.answer(cancel.watch_id) }).await?;
                    self.progress_of_all().await
                }
                None => Ok(()),
            },
            Some(RequestUnion::Progress(_)) => {
                self.ask_all();
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let refused = |session: &Self, reason: &str| WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..session.answer(NO_WATCH)
        };
        let start = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() };
        let range = KeyRange { start, end: create.range_end.clone() };
        let Ok(from) = u64::try_from(create.start_revision) else {
            return self.send(refused(self, COMPACTED)).await;
        };
        if range.is_empty() {
            return self.send(refused(self, "mvcc: watcher range is empty")).await;
        }
        if self.watches.len() >= MAX_WATCHES {
            return self.send(refused(self, "etcdserver: too many requests")).await;
        }
        let Some(id) = self.new_id(create.watch_id) else {
            let reason = "mvcc: duplicate watch ID provided on the WatchStream";
            return self.send(refused(self, reason)).await;
        };
        let watch = self.store.watch(range, (from > 0).then_some(Revision(from))).await;
        let created = WatchResponse { created: true, ..self.answer(id) };
        match watch {
            Ok(watch) => {
                self.send(created).await?;
                let control = Arc::new(Control::of(id, &create));
                if let Some((left, _)) = &mut self.asked {
                    // What is said of all watches holds for this one, too.
                    *left += 1;
                    control.wanted_by_all.store(true, Ordering::Relaxed);
                }
                self.watches.insert(id, control.clone());
                self.running.push(step(watch, control).boxed());
                Ok(())
            }
            Err(error @ Error::Compacted(_)) => {
                self.send(created).await?;
                self.send(self.cancelled(id, &error)).await
            }
            Err(error) => self.send(refused(self, from_error(error).message())).await,
        }
    }

    /// The number asked for, or the next free one for 0; `None` if it is taken.
    fn new_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.watches.contains_key(&wanted)).then_some(wanted);
        }
        loop {
            self.last_id += 1;
            if !self.watches.contains_key(&self.last_id) {
                return Some(self.last_id);
            }
        }
    }

    /// The answer that ends a watch.
    fn cancelled(&self, id: i64, error: &Error) -> WatchResponse {
        let end = WatchResponse { canceled: true, ..self.answer(id) };
        match error {
            // As etcd says it, by the revision alone.
            Error::Compacted(oldest) => {
                WatchResponse { header: header(Revision(0)), compact_revision: oldest.0 as i64, ..end }
            }
            other => WatchResponse { cancel_reason: from_error(other.clone()).message().to_owned(), ..end },
        }
    }

    async fn outcome(&mut self, outcome: Outcome) -> Result<(), Gone> {
        match outcome {
            Outcome::Message(watch, control, message) => {
                if control.cancelled.load(Ordering::Relaxed) {
                    return Ok(());
                }
                match message {
                    WatchMessage::Events(events) => self.events(&control, &events).await?,
                    WatchMessage::Progress(revision) => self.progress(&control, revision).await?,
                }
                self.running.push(step(watch, control).boxed());
                Ok(())
            }
            Outcome::Failed(control, error) => {
                let id = control.options.id;
                if self.watches.remove(&id).is_some() {
                    self.forget(&control);
                    self.send(self.cancelled(id, &error)).await?;
                    self.progress_of_all().await?;
                }
                Ok(())
            }
            Outcome::Cancelled => Ok(()),
        }
    }

    async fn events(&mut self, control: &Control, events: &[Arc<Event>]) -> Result<(), Gone> {
        let options = &control.options;
        let compacted = self.store.compacted();
        let mut answer = self.answer(options.id);
        let mut bytes = 0;
        let mut last = Revision(0);
        for event in events.iter().filter(|event| options.wants(event.kind)) {
            let same_revision = event.kv.mod_revision == last;
            if bytes >= ANSWER_BYTES && (!same_revision || options.fragment) {
                let next = self.answer(options.id);
                let full = std::mem::replace(&mut answer, next);
                self.send(WatchResponse { fragment: same_revision, ..full }).await?;
                bytes = 0;
            }
            last = event.kv.mod_revision;
            // As etcd: where the revision before it cannot be read any more.
            let with_previous = options.previous && event.kv.mod_revision > compacted;
            let event = event_of(event, with_previous);
            bytes += event.encoded_len();
            answer.events.push(event);
        }
        if answer.events.is_empty() {
            return Ok(());
        }
        control.busy.store(true, Ordering::Relaxed);
        self.send(answer).await
    }

    /// A watch has handed out everything up to a revision.
    async fn progress(&mut self, control: &Control, revision: Revision) -> Result<(), Gone> {
        if control.wanted.swap(false, Ordering::Relaxed) {
            self.send(WatchResponse { header: header(revision), ..self.answer(control.options.id) }).await?;
        }
        if control.wanted_by_all.swap(false, Ordering::Relaxed) {
            if let Some((left, least)) = &mut self.asked {
                (*left, *least) = (left.saturating_sub(1), revision.min(*least));
            }
            self.progress_of_all().await?;
        }
        Ok(())
    }

    /// Ask every watch how far it is. What was asked for before is answered with it.
    fn ask_all(&mut self) {
        if self.watches.is_empty() {
            return;
        }
        let mut left = self.asked.map_or(0, |(left, _)| left);
        for control in self.watches.values() {
            left += usize::from(!control.wanted_by_all.swap(true, Ordering::Relaxed));
            control.told.notify_one();
        }
        self.asked = Some((left, Revision(u64::MAX)));
    }

    /// A watch that has ended answers no more.
    fn forget(&mut self, control: &Control) {
        if let (Some((left, _)), true) = (&mut self.asked, control.wanted_by_all.load(Ordering::Relaxed)) {
            *left = left.saturating_sub(1);
        }
    }

    /// Tell the client how far all watches are, once all have said so.
    async fn progress_of_all(&mut self) -> Result<(), Gone> {
        match self.asked {
            Some((0, least)) => {
                self.asked = None;
                let revision = least.min(self.store.revision());
                self.send(WatchResponse { header: header(revision), ..self.answer(NO_WATCH) }).await
            }
            _ => Ok(()),
        }
    }

    fn interval(&self) {
        for control in self.watches.values().filter(|control| control.options.progress_notify) {
            // One that has just had an event knows how far it is.
            if !control.busy.swap(false, Ordering::Relaxed) {
                control.wanted.store(true, Ordering::Relaxed);
                control.told.notify_one();
            }
        }
    }
}

impl Control {
    fn of(id: i64, create: &WatchCreateRequest) -> Self {
        let filtered = |filter: FilterType| create.filters.contains(&(filter as i32));
        Control {
            options: Options {
                id,
                progress_notify: create.progress_notify,
                previous: create.prev_kv,
                fragment: create.fragment,
                no_put: filtered(FilterType::NoPut),
                no_delete: filtered(FilterType::NoDelete),
            },
            told: Notify::new(),
            cancelled: AtomicBool::new(false),
            wanted_by_all: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        }
    }
}

impl Options {
    fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// Wait for the next message of a watch, or for what the stream has to tell it.
async fn step(mut watch: Box<dyn Watch>, control: Arc<Control>) -> Outcome {
    loop {
        if control.cancelled.load(Ordering::Relaxed) {
            return Outcome::Cancelled;
        }
        if control.wanted_by_all.load(Ordering::Relaxed) || control.wanted.load(Ordering::Relaxed) {
            watch.request_progress();
        }
        tokio::select! {
            message = watch.next() => return match message {
                Ok(message) => Outcome::Message(watch, control, message),
                Err(error) => Outcome::Failed(control, error),
            },
            () = control.told.notified() => {}
        }
    }
}

fn event_of(event: &Event, with_previous: bool) -> proto::Event {
    let kind = match event.kind {
        EventKind::Put => proto::EventType::Put,
        EventKind::Delete => proto::EventType::Delete,
    };
    proto::Event {
        kind: kind as i32,
        kv: Some(key_value(event.kv.clone())),
        prev_kv: event.previous.clone().filter(|_| with_previous).map(key_value),
    }
}
