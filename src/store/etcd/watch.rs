//! One watch on an etcd cluster: a stream of its own, opened again at the next revision when its member is lost.

use super::Shared;
use super::cluster::Cluster;
use super::form;
use crate::store::proto::{Empty, RequestUnion, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::store::{Error, Event, KeyRange, Revision, Watch, WatchMessage};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

const PATH: &str = "/etcdserverpb.Watch/Watch";

/// Requests on their way to etcd on one stream.
const REQUESTS: usize = 4;

/// How long a lost stream is opened again before the watch fails, and the pause in between.
const RETRY_FOR: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Answers to progress requests, one after another without an event in between, that a hasty etcd has to give, and how
/// long the stream must have been open: it reads history within 100 ms.
const HASTY_ANSWERS: u32 = 20;
const HASTY_PAUSE: Duration = Duration::from_millis(300);

/// How long to wait for an answer to a progress request before the next one.
const ASK_AGAIN: Duration = Duration::from_millis(100);

pub struct EtcdWatch {
    shared: Arc<Shared>,
    range: KeyRange,
    /// First revision that has not been handed out.
    next: Revision,
    stream: Option<Stream>,
    progress: Progress,
    /// Events of a revision that is not complete yet.
    part: Vec<Arc<Event>>,
}

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    since: Instant,
}

/// Progress that was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Idle,
    /// Etcd is to be asked, after so many answers in a row.
    Wanted(u32),
    /// It has been asked, likewise.
    Asked(u32),
}

impl EtcdWatch {
    pub async fn open(shared: Arc<Shared>, range: KeyRange, from: Option<Revision>) -> Result<Self, Error> {
        let mut watch = EtcdWatch {
            shared,
            range,
            next: from.unwrap_or(Revision(0)),
            stream: None,
            progress: Progress::Idle,
            part: Vec::new(),
        };
        watch.connect().await?;
        Ok(watch)
    }

    /// Open the stream from the next revision on, at whichever member answers.
    async fn connect(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + RETRY_FOR;
        let closed = self.shared.closed.clone();
        loop {
            let opened = tokio::select! {
                opened = self.try_connect() => opened,
                () = closed.cancelled() => return Err(Error::Closed),
            };
            match opened {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(status) if Instant::now() >= deadline => return Err(self.shared.error(status, "watching").await),
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn try_connect(&mut self) -> Result<Stream, Status> {
        let (key, range_end) = form::key_range(&self.range);
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: form::number(self.next),
            prev_kv: true,
            fragment: true,
            ..Default::default()
        };
        let (requests, mut answers) = open(&self.shared.cluster, create).await?;
        let created = answers.message().await?.ok_or_else(ended)?;
        if self.next == Revision(0) {
            // From the next write on, wherever the stream is opened again.
            self.next = Revision(form::header_revision(created.header).0 + 1);
        }
        self.shared.heard(created.header);
        Ok(Stream { requests, answers, since: Instant::now() })
    }

    /// What an answer means; `None`: nothing to hand out.
    fn take(&mut self, answer: WatchResponse) -> Result<Option<WatchMessage>, Error> {
        let at = self.shared.heard(answer.header);
        if answer.compact_revision > 0 {
            let oldest = form::revision(answer.compact_revision);
            self.shared.heard_compacted(oldest);
            return Err(Error::Compacted(oldest));
        }
        if answer.canceled {
            return Err(Error::Failed { step: "watching", message: answer.cancel_reason });
        }
        if answer.events.is_empty() && self.part.is_empty() {
            return Ok(self.progress(at));
        }
        self.part.extend(answer.events.into_iter().map(|event| Arc::new(form::event(event))));
        if answer.fragment {
            return Ok(None);
        }
        if self.shared.hasty && matches!(self.progress, Progress::Asked(_)) {
            self.progress = Progress::Asked(0);
        }
        let events = std::mem::take(&mut self.part);
        if let Some(last) = events.last() {
            self.next = Revision(last.kv.mod_revision.0 + 1);
        }
        Ok(Some(WatchMessage::Events(events)))
    }

    /// Etcd says that it has sent everything up to a revision.
    fn progress(&mut self, at: Revision) -> Option<WatchMessage> {
        let Progress::Asked(answers) = self.progress else { return None };
        let settled = self.stream.as_ref().is_some_and(|stream| stream.since.elapsed() >= HASTY_PAUSE);
        if self.shared.hasty && (answers < HASTY_ANSWERS || !settled) {
            self.progress = Progress::Wanted(answers.saturating_add(1));
            return None;
        }
        self.progress = Progress::Idle;
        self.next = self.next.max(Revision(at.0 + 1));
        Some(WatchMessage::Progress(at))
    }

    /// Have etcd say how far it is, if that is wanted. It does not answer while it is reading history for this watch,
    /// so it is asked again after a while.
    async fn ask(&mut self) {
        let Some(stream) = &self.stream else { return };
        let answers = match self.progress {
            Progress::Wanted(answers) => answers,
            Progress::Idle | Progress::Asked(_) => return,
        };
        if self.shared.hasty && answers >= HASTY_ANSWERS {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let request = WatchRequest { request_union: Some(RequestUnion::Progress(Empty {})) };
        // A stream that has ended says so when it is read.
        let _ = stream.requests.try_send(request);
        self.progress = Progress::Asked(answers);
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchMessage, Error> {
        loop {
            self.shared.check_open()?;
            if self.stream.is_none() {
                self.connect().await?;
            }
            self.ask().await;
            let asked = matches!(self.progress, Progress::Asked(_));
            let closed = self.shared.closed.clone();
            let Some(stream) = &mut self.stream else { continue };
            let answer = tokio::select! {
                answer = stream.answers.message() => answer,
                () = closed.cancelled() => return Err(Error::Closed),
                () = tokio::time::sleep(ASK_AGAIN), if asked => {
                    self.progress = self.progress.again();
                    continue;
                }
            };
            match answer {
                Ok(Some(answer)) => {
                    if let Some(message) = self.take(answer)? {
                        return Ok(message);
                    }
                }
                Ok(None) | Err(_) => self.lost(),
            }
        }
    }

    fn request_progress(&mut self) {
        if self.progress == Progress::Idle {
            self.progress = Progress::Wanted(0);
        }
    }
}

impl EtcdWatch {
    /// The member has gone: begin again at the next revision.
    fn lost(&mut self) {
        self.stream = None;
        self.part.clear();
        self.progress = self.progress.again();
    }
}

impl Progress {
    fn again(self) -> Self {
        match self {
            Progress::Idle => Progress::Idle,
            Progress::Wanted(answers) | Progress::Asked(answers) => Progress::Wanted(answers),
        }
    }
}

fn ended() -> Status {
    Status::unavailable("the watch has ended")
}

type Opened = (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>);

async fn open(cluster: &Cluster, create: WatchCreateRequest) -> Result<Opened, Status> {
    let (requests, queue) = mpsc::channel(REQUESTS);
    // There is room: nothing has been sent yet.
    let _ = requests.try_send(WatchRequest { request_union: Some(RequestUnion::Create(create)) });
    let answers = cluster.stream(PATH, ReceiverStream::new(queue)).await?;
    Ok((requests, answers))
}

/// The oldest revision that can be read, if anything has been compacted: a watch from the first one is refused with it.
pub async fn oldest(cluster: &Cluster) -> Result<Option<Revision>, Error> {
    // One key, which nobody has.
    let create = WatchCreateRequest { key: Bytes::from_static(&[0]), start_revision: 1, ..Default::default() };
    let ask = async {
        // The requests' end is kept: etcd ends a stream whose client has nothing more to say.
        let (_requests, mut answers) = open(cluster, create).await?;
        while let Some(answer) = answers.message().await? {
            if answer.compact_revision > 0 {
                return Ok(Some(form::revision(answer.compact_revision)));
            }
        }
        Ok(None)
    };
    match tokio::time::timeout(HASTY_PAUSE, ask).await {
        Ok(found) => found.map_err(|status: Status| Error::Unreachable(status.message().to_owned())),
        // Nothing to say against it.
        Err(_) => Ok(None),
    }
}
