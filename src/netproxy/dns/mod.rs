//! DNS at the cluster DNS address of this node, in process (DESIGN D9): the cluster's names from the caches
//! ([`zone`]), everything else from the servers above ([`upstream`]).

mod upstream;
mod zone;

use super::Shared;
use crate::cache::Cache;
use crate::task::Group;
use anyhow::Context;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};
use upstream::Upstream;
use zone::{Said, Zone};

const PORT: u16 = 53;
/// The longest answer by UDP, whatever the caller says it takes: more may be fragmented and lost.
const MAX_UDP_BYTES: u16 = 1232;
/// Questions by UDP being answered at once; of more, the caller asks again.
const MAX_UDP_AT_ONCE: usize = 2048;
/// TCP callers served at once; more wait.
const MAX_TCP_AT_ONCE: usize = 128;
/// A TCP caller that is silent for this long is left.
const TCP_PATIENCE: Duration = Duration::from_secs(10);
/// Aliases followed for one answer.
const MAX_ALIASES: usize = 8;
/// Between two tries to listen while another program has the port.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// Answers questions; knows no sockets.
struct Responder {
    zone: Zone,
    upstream: Upstream,
}

/// Start answering. An address that another program holds is waited for, not fatal: the node's pods still run.
pub(super) async fn start(
    shared: Arc<Shared>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    group: &Group,
) -> anyhow::Result<()> {
    let config = &shared.config;
    let networks = shared.settings.iter().flat_map(|s| [s.cluster, s.services]).collect();
    let zone = Zone::new(&config.cluster_domain, services, slices, networks)
        .with_context(|| format!("cluster-domain {:?}", config.cluster_domain))?;
    let responder =
        Arc::new(Responder { zone, upstream: Upstream::new(config.resolv_conf.clone(), vec![config.cluster_dns]) });
    let address = SocketAddr::new(config.cluster_dns, PORT);
    match listen(address).await {
        Ok((udp, tcp)) => serve(responder, udp, tcp, group),
        Err(error) => {
            warn!(%address, %error, "another program holds the DNS address; waiting for it");
            let parent = group.clone();
            group.spawn("dns-listen", async move {
                loop {
                    tokio::time::sleep(LISTEN_RETRY).await;
                    if let Ok((udp, tcp)) = listen(address).await {
                        return serve(responder, udp, tcp, &parent);
                    }
                }
            });
        }
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address).await?, TcpListener::bind(address).await?))
}

fn serve(responder: Arc<Responder>, udp: UdpSocket, tcp: TcpListener, group: &Group) {
    info!(address = ?udp.local_addr().ok(), "DNS");
    group.spawn("dns-udp", serve_udp(responder.clone(), Arc::new(udp), group.clone()));
    group.spawn("dns-tcp", serve_tcp(responder, tcp, group.clone()));
}

async fn serve_udp(responder: Arc<Responder>, socket: Arc<UdpSocket>, group: Group) {
    let slots = Arc::new(Semaphore::new(MAX_UDP_AT_ONCE));
    let mut buffer = vec![0; 4096];
    loop {
        let (length, caller) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer was refused (ICMP); nothing is wrong with the socket.
                debug!(%error, "DNS socket");
                continue;
            }
        };
        let Ok(request) = Message::from_vec(&buffer[..length]) else {
            if let Some(answer) = malformed(&buffer[..length]) {
                let _ = socket.send_to(&answer, caller).await;
            }
            continue;
        };
        if let Some(answer) = responder.at_once(&request) {
            let _ = socket.send_to(&fit(answer, request.max_payload().min(MAX_UDP_BYTES)), caller).await;
            continue;
        }
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (responder, socket) = (responder.clone(), socket.clone());
        group.spawn("dns-question", async move {
            let answer = responder.answer(&request).await;
            let _ = socket.send_to(&fit(answer, request.max_payload().min(MAX_UDP_BYTES)), caller).await;
            drop(slot);
        });
    }
}

async fn serve_tcp(responder: Arc<Responder>, listener: TcpListener, group: Group) {
    let slots = Arc::new(Semaphore::new(MAX_TCP_AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let responder = responder.clone();
                group.spawn("dns-caller", async move {
                    // A caller that goes away, or talks nonsense, ends only itself.
                    if let Err(error) = serve_caller(&responder, stream).await {
                        debug!(%error, "DNS caller");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "DNS socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_caller(responder: &Responder, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(TCP_PATIENCE, stream.read_u16()).await??;
        let mut bytes = vec![0; length.into()];
        tokio::time::timeout(TCP_PATIENCE, stream.read_exact(&mut bytes)).await??;
        let answer = match Message::from_vec(&bytes) {
            Ok(request) => fit(responder.answer(&request).await, u16::MAX),
            Err(_) => malformed(&bytes).ok_or_else(|| io::Error::other("not a DNS message"))?,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), &answer[..]].concat();
        tokio::time::timeout(TCP_PATIENCE, stream.write_all(&framed)).await??;
    }
}

impl Responder {
    /// The answer, if it takes no waiting.
    fn at_once(&self, request: &Message) -> Option<Message> {
        let query = match checked(request) {
            Ok(query) => query,
            Err(code) => return Some(reply(request, code)),
        };
        self.zone_says(request, query)
    }

    async fn answer(&self, request: &Message) -> Message {
        if let Some(answer) = self.at_once(request) {
            return answer;
        }
        match checked(request) {
            Ok(query) => self.follow(request, query).await,
            Err(code) => reply(request, code),
        }
    }

    /// None: aliases or the servers above are needed.
    fn zone_says(&self, request: &Message, query: &Query) -> Option<Message> {
        let said = self.zone.answer(query.name(), query.query_type());
        let mut answer = reply(request, ResponseCode::NoError);
        answer.metadata.authoritative = true;
        match said {
            Said::Found { answers, additionals } => {
                answer.answers = rotated(answers);
                answer.additionals = additionals;
            }
            Said::NoData => {
                answer.add_authority(self.zone.soa());
            }
            Said::NoSuchName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(self.zone.soa());
            }
            Said::NotYet => return Some(reply(request, ResponseCode::ServFail)),
            Said::Alias(..) | Said::Elsewhere => return None,
        }
        Some(answer)
    }

    async fn follow(&self, request: &Message, query: &Query) -> Message {
        let mut answer = reply(request, ResponseCode::NoError);
        let dnssec = request.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok);
        let mut name = query.name().clone();
        for _ in 0..MAX_ALIASES {
            let code = match self.zone.answer(&name, query.query_type()) {
                Said::Alias(record, target) => {
                    answer.metadata.authoritative = true;
                    answer.add_answer(*record);
                    if query.query_type() == RecordType::CNAME {
                        return answer;
                    }
                    name = target;
                    continue;
                }
                Said::Found { answers, additionals } => {
                    answer.add_answers(rotated(answers));
                    answer.add_additionals(additionals);
                    ResponseCode::NoError
                }
                Said::Elsewhere => self.ask_above(&mut answer, query, &name, dnssec).await,
                Said::NoData => ResponseCode::NoError,
                Said::NoSuchName => ResponseCode::NXDomain,
                Said::NotYet => ResponseCode::ServFail,
            };
            answer.metadata.response_code = code;
            return answer;
        }
        // More aliases than anybody means.
        answer.metadata.response_code = ResponseCode::ServFail;
        answer
    }

    async fn ask_above(&self, answer: &mut Message, query: &Query, name: &Name, dnssec: bool) -> ResponseCode {
        let mut asked = query.clone();
        asked.set_name(name.clone());
        let Some(reply) = self.upstream.ask(&asked, dnssec).await else { return ResponseCode::ServFail };
        answer.metadata.authentic_data = reply.metadata.authentic_data;
        answer.add_answers(reply.answers.iter().cloned());
        answer.add_authorities(reply.authorities.iter().cloned());
        answer.add_additionals(reply.additionals.iter().cloned());
        reply.metadata.response_code
    }
}

/// The one question of a message that we answer.
fn checked(request: &Message) -> Result<&Query, ResponseCode> {
    if request.metadata.op_code != OpCode::Query || request.metadata.message_type != MessageType::Query {
        return Err(ResponseCode::NotImp);
    }
    match &request.queries[..] {
        [query] if query.query_class() == DNSClass::IN => Ok(query),
        [_] => Err(ResponseCode::Refused),
        _ => Err(ResponseCode::FormErr),
    }
}

/// An empty answer.
fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&request.metadata);
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_BYTES).set_dnssec_ok(asked.flags().dnssec_ok);
        answer.set_edns(edns);
    }
    answer
}

/// Callers take the first address: each answer starts with another one.
fn rotated<T>(mut records: Vec<T>) -> Vec<T> {
    if !records.is_empty() {
        let by = rand::random::<u32>() as usize % records.len();
        records.rotate_left(by);
    }
    records
}

/// The answer as bytes, without optional parts or cut and marked so when it is too long: the caller comes again by TCP.
fn fit(mut answer: Message, most: u16) -> Vec<u8> {
    let bytes = |message: &Message| message.to_vec().ok();
    let fits = |b: &Vec<u8>| b.len() <= usize::from(most);
    if let Some(whole) = bytes(&answer).filter(fits) {
        return whole;
    }
    answer.additionals.clear();
    if let Some(shorter) = bytes(&answer).filter(fits) {
        return shorter;
    }
    bytes(&answer.truncate()).unwrap_or_default()
}

/// FORMERR for what has at least a header of a question.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    let is_question = bytes.get(2)? & 0x80 == 0;
    let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    is_question.then(|| message.to_vec().ok()).flatten()
}

#[cfg(test)]
#[path = "responder_tests.rs"]
mod tests;
