//! Names that are not the cluster's: asked of the machine's own resolvers, remembered for a while.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info, warn};

/// Waiting for one server, once.
const TRY_PATIENCE: Duration = Duration::from_secs(2);
/// All servers together: a stub resolver gives up after five seconds.
const WHOLE_PATIENCE: Duration = Duration::from_millis(4500);
/// Questions waiting for upstream; more are answered SERVFAIL at once.
const MAX_WAITING: usize = 1024;
/// Answers remembered; when full, expired ones go, and if none is, all.
const MAX_REMEMBERED: usize = 4096;
/// Longer answers are not remembered.
const MAX_REMEMBERED_BYTES: usize = 4096;
/// The longest time an answer is believed, and the time for one that carries none.
const MAX_TTL: u32 = 30;
/// Servers used, as in resolv.conf(5), which takes three; some files name more.
const MAX_SERVERS: usize = 8;
/// What we accept by UDP without fragments (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;
/// How often the resolver file is looked at.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// Files in the order tried when none is given: systemd-resolved's list of real servers comes first, because
/// `/etc/resolv.conf` then names its stub.
const FILES: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    /// In lower case.
    name: Name,
    kind: RecordType,
    dnssec: bool,
}

type Reply = Option<Arc<Message>>;

/// The servers above us.
pub struct Upstream {
    file: Option<PathBuf>,
    /// Never asked: ourselves.
    own: Vec<IpAddr>,
    servers: Mutex<Servers>,
    /// The server that answered last is asked first.
    preferred: AtomicUsize,
    remembered: Mutex<HashMap<Question, Remembered>>,
    /// The same question is asked once at a time: a question that comes back to us by a loop waits for itself and times
    /// out, instead of multiplying.
    asking: Mutex<HashMap<Question, watch::Receiver<Reply>>>,
    slots: Semaphore,
}

#[derive(Default)]
struct Servers {
    list: Arc<Vec<SocketAddr>>,
    read_from: Option<(PathBuf, Option<SystemTime>)>,
    looked_at: Option<Instant>,
}

struct Remembered {
    message: Arc<Message>,
    since: Instant,
    ttl: u32,
}

impl Upstream {
    pub fn new(file: Option<PathBuf>, own: Vec<IpAddr>) -> Self {
        Upstream {
            file,
            own,
            servers: Mutex::default(),
            preferred: AtomicUsize::new(0),
            remembered: Mutex::default(),
            asking: Mutex::default(),
            slots: Semaphore::new(MAX_WAITING),
        }
    }

    /// These servers, and no file.
    #[cfg(test)]
    pub fn of_servers(servers: Vec<SocketAddr>) -> Self {
        let upstream = Self::new(Some("/nonexistent".into()), Vec::new());
        let far = Instant::now() + Duration::from_secs(3600);
        *upstream.servers.lock() = Servers { list: Arc::new(servers), read_from: None, looked_at: Some(far) };
        upstream
    }

    /// The answer to a question; None when nobody gives one in time.
    pub async fn ask(&self, query: &Query, dnssec: bool) -> Reply {
        let question = Question { name: query.name().to_lowercase(), kind: query.query_type(), dnssec };
        if let Some(message) = self.recall(&question) {
            return Some(message);
        }
        let (sender, asked_by_other) = self.enter(&question);
        let Some(sender) = sender else { return wait(asked_by_other).await };
        let reply = self.ask_servers(query, dnssec).await.map(Arc::new);
        if let Some(message) = &reply {
            self.remember(&question, message);
        }
        self.asking.lock().remove(&question);
        sender.send_replace(reply.clone());
        reply
    }

    /// The right to ask, or what somebody else is asking.
    fn enter(&self, question: &Question) -> (Option<watch::Sender<Reply>>, watch::Receiver<Reply>) {
        let mut asking = self.asking.lock();
        // The one who asked may have been dropped in between: then its sender is gone.
        if let Some(receiver) = asking.get(question).filter(|r| r.has_changed().is_ok()) {
            return (None, receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        asking.insert(question.clone(), receiver.clone());
        (Some(sender), receiver)
    }

    async fn ask_servers(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let _slot = self.slots.try_acquire().ok()?;
        let servers = self.servers();
        let first = self.preferred.load(Ordering::Relaxed);
        let ask_all = async {
            // A server that says SERVFAIL or REFUSED may know less than the next.
            let mut fallback = None;
            for turn in 0..servers.len() {
                let index = (first + turn) % servers.len();
                match ask_server(servers[index], query, dnssec).await {
                    Ok(message)
                        if [ResponseCode::ServFail, ResponseCode::Refused]
                            .contains(&message.metadata.response_code) =>
                    {
                        fallback.get_or_insert(message);
                    }
                    Ok(message) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Some(message);
                    }
                    Err(error) => debug!(server = %servers[index], name = %query.name(), %error, "no answer"),
                }
            }
            fallback
        };
        tokio::time::timeout(WHOLE_PATIENCE, ask_all).await.ok().flatten()
    }

    fn recall(&self, question: &Question) -> Reply {
        let remembered = self.remembered.lock();
        let found = remembered.get(question)?;
        let age = found.since.elapsed().as_secs() as u32;
        if age >= found.ttl {
            return None;
        }
        let mut message = (*found.message).clone();
        for record in message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(Arc::new(message))
    }

    fn remember(&self, question: &Question, message: &Arc<Message>) {
        let Some(ttl) = ttl(message) else { return };
        if message.to_vec().map_or(true, |bytes| bytes.len() > MAX_REMEMBERED_BYTES) {
            return;
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, r| r.since.elapsed().as_secs() < u64::from(r.ttl));
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(question.clone(), Remembered { message: message.clone(), since: Instant::now(), ttl });
    }

    /// The servers of the resolver file, read again when it changed.
    fn servers(&self) -> Arc<Vec<SocketAddr>> {
        let mut servers = self.servers.lock();
        if servers.looked_at.is_some_and(|at| at.elapsed() < REREAD_INTERVAL) {
            return servers.list.clone();
        }
        servers.looked_at = Some(Instant::now());
        let (path, text) = self.read_file();
        let now = Some((path.clone(), std::fs::metadata(&path).and_then(|m| m.modified()).ok()));
        if servers.read_from != now {
            servers.read_from = now;
            servers.list = Arc::new(parse(&text, &self.own));
            match servers.list.is_empty() {
                true => warn!(file = %path.display(), "no DNS servers above us: only the cluster's names are answered"),
                false => info!(file = %path.display(), servers = ?servers.list, "DNS servers above us"),
            }
        }
        servers.list.clone()
    }

    /// The first file that names a server we can use.
    fn read_file(&self) -> (PathBuf, String) {
        let files: Vec<&Path> = match &self.file {
            Some(file) => vec![file],
            None => FILES.iter().map(Path::new).collect(),
        };
        let read = |path: &&Path| std::fs::read_to_string(path).ok().map(|text| (path.to_path_buf(), text));
        let mut found: Vec<_> = files.iter().filter_map(read).collect();
        let usable = found.iter().position(|(_, text)| !parse(text, &self.own).is_empty());
        match usable {
            Some(index) => found.swap_remove(index),
            None => found.pop().unwrap_or((files[files.len() - 1].to_path_buf(), String::new())),
        }
    }
}

/// What somebody else's question brings.
async fn wait(mut receiver: watch::Receiver<Reply>) -> Reply {
    let answered = receiver.wait_for(Option::is_some);
    let reply = tokio::time::timeout(WHOLE_PATIENCE, answered).await;
    reply.ok().and_then(Result::ok).and_then(|reply| reply.clone())
}

/// The usable `nameserver` lines of a resolv.conf(5).
fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let word = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // fe80::1%eth0 names an interface that the socket address cannot carry.
        let address: IpAddr = word.parse().ok()?;
        (!own.contains(&address)).then_some(SocketAddr::new(address, 53))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

/// How long an answer may be believed; None for what is not to be remembered.
fn ttl(message: &Message) -> Option<u32> {
    let known = [ResponseCode::NoError, ResponseCode::NXDomain].contains(&message.metadata.response_code);
    let records =
        message.answers.iter().chain(&message.authorities).filter(|r| r.ttl > 0 || !message.answers.is_empty());
    let least = records.map(|r| r.ttl).min().unwrap_or(MAX_TTL).min(MAX_TTL);
    (known && least > 0).then_some(least)
}

/// Ask one server: by UDP, and by TCP when the answer did not fit.
async fn ask_server(server: SocketAddr, query: &Query, dnssec: bool) -> io::Result<Message> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(dnssec);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let answer = tokio::time::timeout(TRY_PATIENCE, by_udp(server, &message, &bytes)).await??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    tokio::time::timeout(TRY_PATIENCE, by_tcp(server, &message, &bytes)).await?
}

/// A socket of its own for each question: an unpredictable port beside an unpredictable id.
async fn by_udp(server: SocketAddr, message: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not answer our question is not from our server; the right answer may still come.
        if let Some(answer) = read_answer(message, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, message: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    read_answer(message, &buffer).ok_or_else(|| io::Error::other("not an answer to the question"))
}

fn read_answer(asked: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == asked.metadata.id && answer.metadata.message_type == MessageType::Response;
    // Servers may leave the question out of an error.
    let about = answer.queries.is_empty() || answer.queries == asked.queries;
    (same && about).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_files() {
        let own = ["10.43.0.10".parse().unwrap()];
        let text = "# comment\nsearch lan\nnameserver 192.0.2.53\nnameserver\t2001:db8::53\nnameserver 10.43.0.10\n\
                    nameserver fe80::1%eth0\n;nameserver 192.0.2.54\nnameserver nonsense\noptions ndots:2\n";
        assert_eq!(parse(text, &own), ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]);
    }
}
