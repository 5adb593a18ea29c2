//! Container logs: CRI's log files (`<RFC 3339 time> stdout|stderr P|F <text>`) as `kubectl logs` asks for them.

use super::{Container, Pods, is};
use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::query::Query;
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Parts of an answer waiting for the client; when full, reading waits.
const ANSWER_PARTS: usize = 8;
/// Text gathered before it is sent.
const PART_BYTES: usize = 16 * 1024;
/// Read backwards in steps of this size to find the last lines.
const TAIL_STEP_BYTES: u64 = 64 * 1024;
/// How often a followed log is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);

/// `v1.PodLogOptions` as query parameters.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<&'static str>,
}

impl Options {
    pub fn parse(query: &Query) -> Result<Self> {
        let number = |name: &str| match query.find(name) {
            None => Ok(None),
            Some(text) => {
                text.parse::<u64>().map(Some).map_err(|_| Status::bad_request(format!("invalid {name}: {text:?}")))
            }
        };
        let since = match (query.find("sinceTime"), number("sinceSeconds")?) {
            (Some(text), _) => {
                Some(text.parse().map_err(|_| Status::bad_request(format!("invalid sinceTime: {text:?}")))?)
            }
            (None, Some(seconds)) => {
                Timestamp::now().checked_sub(SignedDuration::from_secs(seconds.min(i64::MAX as u64 / 2) as i64)).ok()
            }
            _ => None,
        };
        let stream = match query.get("stream") {
            "Stdout" => Some("stdout"),
            "Stderr" => Some("stderr"),
            _ => None,
        };
        Ok(Options {
            follow: is(query, "follow"),
            previous: is(query, "previous"),
            timestamps: is(query, "timestamps"),
            since,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            stream,
        })
    }
}

/// Stream the log of a container.
pub async fn serve(
    pods: Arc<dyn Pods>,
    container: Container,
    options: Options,
    group: &Group,
) -> Result<Response<Body>> {
    let file = match File::open(&container.log).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A container that has just been made has no file yet; one that is gone never will.
            return Ok(text(Body::empty()));
        }
        Err(error) => return Err(Status::internal(format!("cannot read {}: {error}", container.log.display()))),
    };
    let (parts, receiver) = mpsc::channel(ANSWER_PARTS);
    group.spawn("logs", async move {
        let mut reading = Reading { pods, container, options, parts, sent: 0, part: BytesMut::new(), open_line: false };
        if let Err(error) = reading.run(file).await {
            tracing::debug!(%error, "log stream ended");
        }
    });
    Ok(text(Body::from_stream(ReceiverStream::new(receiver))))
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

struct Reading {
    pods: Arc<dyn Pods>,
    container: Container,
    options: Options,
    parts: mpsc::Sender<std::io::Result<Bytes>>,
    sent: u64,
    part: BytesMut,
    /// The last line so far was partial (`P`): the next one continues it.
    open_line: bool,
}

/// Whether to go on.
#[derive(PartialEq)]
enum Flow {
    On,
    Done,
}

impl Reading {
    async fn run(&mut self, mut file: File) -> std::io::Result<()> {
        if let Some(lines) = self.options.tail_lines {
            let start = tail_start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            if self.drain(&mut reader, &mut line).await? == Flow::Done || self.flush().await == Flow::Done {
                return Ok(());
            }
            if !self.options.follow {
                return Ok(());
            }
            // Asked before the last look, so that what was written until the end is still read.
            let ended = !self.pods.is_running(&self.container.id).await;
            if let Some(next) = rotated(&reader, &self.container.log).await {
                self.drain(&mut reader, &mut line).await?;
                reader = BufReader::new(next);
                continue;
            }
            if ended {
                self.drain(&mut reader, &mut line).await?;
                self.flush().await;
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_PERIOD) => {}
                () = self.parts.closed() => return Ok(()),
            }
        }
    }

    /// All whole lines that are there now. A part of a line stays in `line`.
    async fn drain(&mut self, reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<Flow> {
        loop {
            if reader.read_until(b'\n', line).await? == 0 || line.last() != Some(&b'\n') {
                return Ok(Flow::On);
            }
            let flow = self.line(line).await;
            line.clear();
            if flow == Flow::Done {
                return Ok(Flow::Done);
            }
        }
    }

    async fn line(&mut self, raw: &[u8]) -> Flow {
        let Some(entry) = Entry::parse(raw) else { return Flow::On };
        if self.options.stream.is_some_and(|s| s.as_bytes() != entry.stream) {
            return Flow::On;
        }
        if let Some(since) = self.options.since
            && entry.time().is_some_and(|t| t < since)
        {
            return Flow::On;
        }
        if self.options.timestamps && !self.open_line {
            self.part.extend_from_slice(entry.timestamp);
            self.part.put_u8(b' ');
        }
        self.part.extend_from_slice(entry.text);
        if !entry.partial {
            self.part.put_u8(b'\n');
        }
        self.open_line = entry.partial;
        let limit = self.options.limit_bytes.unwrap_or(u64::MAX) - self.sent;
        if self.part.len() as u64 >= limit {
            self.part.truncate(limit as usize);
            self.flush().await;
            return Flow::Done;
        }
        if self.part.len() >= PART_BYTES { self.flush().await } else { Flow::On }
    }

    async fn flush(&mut self) -> Flow {
        if self.part.is_empty() {
            return Flow::On;
        }
        self.sent += self.part.len() as u64;
        match self.parts.send(Ok(self.part.split().freeze())).await {
            Ok(()) => Flow::On,
            Err(_) => Flow::Done,
        }
    }
}

/// One line of a CRI log.
struct Entry<'a> {
    timestamp: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(raw: &'a [u8]) -> Option<Self> {
        let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
        let mut fields = raw.splitn(4, |b| *b == b' ');
        let (timestamp, stream, tags) = (fields.next()?, fields.next()?, fields.next()?);
        let partial = tags.split(|b| *b == b':').next() == Some(b"P");
        Some(Entry { timestamp, stream, partial, text: fields.next().unwrap_or_default() })
    }

    fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.timestamp).ok()?.parse().ok()
    }
}

/// Where the last `lines` lines begin.
async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let end = file.metadata().await?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut found = 0;
    let mut block = vec![0u8; TAIL_STEP_BYTES as usize];
    while position > 0 {
        let step = position.min(TAIL_STEP_BYTES);
        position -= step;
        file.seek(SeekFrom::Start(position)).await?;
        let block = &mut block[..step as usize];
        file.read_exact(block).await?;
        for i in (0..block.len()).rev().filter(|i| block[*i] == b'\n') {
            // The newline at the very end closes the last line; it begins none.
            if position + i as u64 + 1 == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(position + i as u64 + 1);
            }
        }
    }
    Ok(0)
}

/// The file that now has the log's name, where that is no longer the one being read.
async fn rotated(reader: &BufReader<File>, path: &Path) -> Option<File> {
    let current = reader.get_ref().metadata().await.ok()?;
    let named = tokio::fs::metadata(path).await.ok()?;
    if current.ino() == named.ino() {
        return None;
    }
    File::open(path).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::runtime::Streams;
    use http_body_util::BodyExt;

    struct Stopped;

    #[async_trait::async_trait]
    impl Pods for Stopped {
        fn list(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
        async fn container(&self, _: &str, _: &str, _: &str, _: bool) -> Result<Container> {
            Err(Status::no_such_path())
        }
        async fn exec_url(&self, _: &str, _: &[String], _: Streams) -> Result<String> {
            Err(Status::no_such_path())
        }
        async fn attach_url(&self, _: &str, _: Streams) -> Result<String> {
            Err(Status::no_such_path())
        }
        async fn network_namespace(&self, _: &str, _: &str) -> Result<std::path::PathBuf> {
            Err(Status::no_such_path())
        }
        async fn snapshot(&self) -> anyhow::Result<crate::agent::stats::Snapshot> {
            anyhow::bail!("nothing runs")
        }
        fn config(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
        async fn is_running(&self, _: &str) -> bool {
            false
        }
    }

    const LOG: &str = "2026-01-01T00:00:01.000000001Z stdout F one\n\
                       2026-01-01T00:00:02Z stderr F two\n\
                       2026-01-01T00:00:03Z stdout P thr\n\
                       2026-01-01T00:00:04Z stdout F ee\n\
                       2026-01-01T00:00:05Z stdout F \n";

    async fn check(query: &str, expect: &str) {
        let dir = tempfile::tempdir().expect("scratch directory");
        let log = dir.path().join("0.log");
        std::fs::write(&log, LOG).expect("write");
        let options = Options::parse(&Query::parse(query)).expect("options");
        let container = Container { id: "c".to_owned(), running: false, log };
        let group = Group::root();
        let response = serve(Arc::new(Stopped), container, options, &group).await.expect("an answer");
        let body = response.into_body().collect().await.expect("body").to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), expect, "{query}");
    }

    #[tokio::test]
    async fn options_choose_lines() {
        check("", "one\ntwo\nthree\n\n").await;
        check("follow=true", "one\ntwo\nthree\n\n").await;
        check("tailLines=2", "ee\n\n").await;
        check("tailLines=0", "").await;
        check("tailLines=100", "one\ntwo\nthree\n\n").await;
        check("limitBytes=5", "one\nt").await;
        check("stream=Stderr", "two\n").await;
        check("sinceTime=2026-01-01T00:00:04Z", "ee\n\n").await;
        check("timestamps=true&tailLines=1", "2026-01-01T00:00:05Z \n").await;
        check("timestamps=true&limitBytes=34", "2026-01-01T00:00:01.000000001Z one").await;
    }

    #[test]
    fn bad_options_are_refused() {
        for query in ["tailLines=-1", "sinceSeconds=x", "sinceTime=yesterday", "limitBytes=1.5"] {
            assert_eq!(Options::parse(&Query::parse(query)).map(|_| ()).map_err(|s| s.code()), Err(400), "{query}");
        }
    }
}
