//! Following what an API server has of a kind: a list in pages, then watches, and again from the start when a revision
//! is gone.

use super::lenient::{self, Lenient, Line, Page, Shell};
use super::{Key, revision};
use futures::{AsyncBufReadExt, TryStreamExt};
use kube::Api;
use kube::api::{ListParams, WatchParams};
use std::time::Duration;
use tracing::{debug, warn};

/// Objects per page of a list.
const LIST_PAGE: u32 = 500;
/// How long one watch request lasts, seconds; the server ends it, we go on from the last revision.
const WATCH_SECONDS: u32 = 290;
/// Silence after which a watch is taken for dead: the server would have ended it itself.
const WATCH_DEAD: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);
/// First and longest pause after an error.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Where [`follow`] puts what it reads.
pub trait Sink<K>: Send {
    /// One object of a complete list; the list ends with `listed`.
    fn found(&mut self, object: K);
    /// The list is complete: what was not found since the last `listed` is gone.
    fn listed(&mut self, revision: u64);
    /// One object of a complete list is there, but cannot be read.
    fn unreadable(&mut self, _key: Key) {}
    /// The list failed half-way: what was found is void.
    fn abandoned(&mut self);
    fn changed(&mut self, object: K);
    fn removed(&mut self, object: K);
    /// Everything up to `revision` has been told.
    fn reached(&mut self, revision: u64);
}

/// Objects that can be listed and watched.
pub trait Followed: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static {}
impl<K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static> Followed for K {}

/// Why a watch ended.
enum Ended {
    /// In order: go on from the last revision.
    Timeout,
    /// Our revision is too old: list again.
    Expired,
    Failed(kube::Error),
}

/// List, watch, and again, for ever; `what` names the objects in logs.
pub async fn follow<K: Followed>(api: Api<K>, what: &str, selector: &str, mut sink: impl Sink<K>) {
    let mut pause = Backoff::default();
    let mut from: Option<u64> = None;
    loop {
        let revision = match from {
            Some(revision) => revision,
            None => match list(&api, selector, &mut sink).await {
                Ok(revision) => revision,
                Err(error) => {
                    debug!(what, %error, "list failed");
                    sink.abandoned();
                    pause.wait().await;
                    continue;
                }
            },
        };
        let (mut last, started) = (revision, tokio::time::Instant::now());
        from = match watch(&api, selector, &mut sink, &mut last).await {
            Ended::Timeout => Some(last),
            Ended::Expired => None,
            Ended::Failed(error) => {
                warn!(what, %error, "watch failed");
                // What was refused, or could not be read, will be so again from there: list afresh.
                let stuck = last == revision && matches!(error, kube::Error::Api(_) | kube::Error::SerdeError(_));
                Some(last).filter(|_| !stuck)
            }
        };
        if last > revision || started.elapsed() > BACKOFF_MAX {
            pause = Backoff::default();
        } else {
            pause.wait().await;
        }
    }
}

async fn list<K: Followed>(api: &Api<K>, selector: &str, sink: &mut impl Sink<K>) -> kube::Result<u64> {
    let mut params = ListParams::default().limit(LIST_PAGE);
    params.field_selector = Some(selector.to_owned()).filter(|s| !s.is_empty());
    let requests = kube::core::Request::new(api.resource_url());
    loop {
        let request = if K::metadata_api() { requests.list_metadata(&params) } else { requests.list(&params) };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let page: Page<K> = api.clone().into_client().request(request).await?;
        for object in page.items.into_iter().flatten() {
            match readable(object) {
                Ok(object) => sink.found(object),
                Err(key) => sink.unreadable(key),
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            // A server without revisions would leave readers waiting for ever: 1 is "complete".
            let revision = revision(page.metadata.resource_version.as_deref()).max(1);
            sink.listed(revision);
            return Ok(revision);
        }
    }
}

/// The object; or the key of one that no reader can be given.
fn readable<K>(object: Lenient<K>) -> Result<K, Key> {
    match object {
        Lenient::Object(object) => Ok(object),
        Lenient::Unreadable { meta, error } => {
            let key = Key::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
            warn!(what = std::any::type_name::<K>(), %key, %error, "object cannot be read; it keeps the state it had");
            Err(key)
        }
    }
}

/// Tell events until the watch ends; `last` follows the revisions seen.
async fn watch<K: Followed>(api: &Api<K>, selector: &str, sink: &mut impl Sink<K>, last: &mut u64) -> Ended {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.field_selector = Some(selector.to_owned()).filter(|s| !s.is_empty());
    let requests = kube::core::Request::new(api.resource_url());
    let from = last.to_string();
    let request =
        if K::metadata_api() { requests.watch_metadata(&params, &from) } else { requests.watch(&params, &from) };
    let mut request = match request {
        Ok(request) => request,
        Err(error) => return Ended::Failed(kube::Error::BuildRequest(error)),
    };
    // A compressed stream would wait for whole blocks.
    request.headers_mut().insert(http::header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
    let mut lines = match api.clone().into_client().request_stream(request).await {
        Ok(answer) => Box::pin(answer.lines()),
        Err(kube::Error::Api(status)) if status.code == GONE => return Ended::Expired,
        Err(error) => return Ended::Failed(error),
    };
    loop {
        let line = match tokio::time::timeout(WATCH_DEAD, lines.try_next()).await {
            Err(_) | Ok(Ok(None)) => return Ended::Timeout,
            // Cut off in the middle: the same as an end.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ended::Timeout,
            Ok(Err(error)) => return Ended::Failed(kube::Error::ReadEvents(error)),
            Ok(Ok(Some(line))) => line,
        };
        match tell(&line, sink) {
            Ok(seen) => *last = seen.max(*last),
            Err(ended) => return ended,
        }
        sink.reached(*last);
    }
}

/// Tell one line of a watch; gives its revision.
fn tell<K: Followed>(line: &str, sink: &mut impl Sink<K>) -> Result<u64, Ended> {
    let wrong = |error| Ended::Failed(kube::Error::SerdeError(error));
    let Line { what, object } = serde_json::from_str(line).map_err(wrong)?;
    if what == "ERROR" {
        let status: kube::core::Status = serde_json::from_str(object.get()).map_err(wrong)?;
        let gone = status.code == GONE;
        return Err(if gone { Ended::Expired } else { Ended::Failed(kube::Error::Api(status.boxed())) });
    }
    if what == "BOOKMARK" {
        let Shell { metadata } = serde_json::from_str(object.get()).map_err(wrong)?;
        return Ok(revision(metadata.resource_version.as_deref()));
    }
    let object: Lenient<K> = lenient::read(object).map_err(wrong)?;
    let version = match &object {
        Lenient::Object(object) => &object.meta().resource_version,
        Lenient::Unreadable { meta, .. } => &meta.resource_version,
    };
    let seen = revision(version.as_deref());
    match readable(object) {
        Ok(object) if what == "DELETED" => sink.removed(object),
        Ok(object) => sink.changed(object),
        // Only a list can say that it is gone.
        Err(_) if what == "DELETED" => return Err(Ended::Expired),
        Err(_) => {}
    }
    Ok(seen)
}
/// `Status.code` of an expired revision.
const GONE: u16 = crate::status::Reason::Expired.parts().1;

/// Doubling pauses with jitter.
#[derive(Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    async fn wait(&mut self) {
        let pause = BACKOFF_MAX.min(BACKOFF_MIN * 2u32.saturating_pow(self.tries.min(16)));
        self.tries += 1;
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.7..1.3))).await;
    }
}
