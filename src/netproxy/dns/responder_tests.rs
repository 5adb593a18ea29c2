use super::upstream::Upstream;
use super::*;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A server above us that answers 192.0.2.7 (and TXT with more than fits UDP), and counts.
async fn above(group: &Group) -> (SocketAddr, Arc<AtomicUsize>) {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = |bytes: &[u8], most: usize| {
        let request = Message::from_vec(bytes).unwrap();
        let mut answer = reply(&request, ResponseCode::NoError);
        let name = request.queries[0].name().clone();
        let count = if name.to_ascii().starts_with("many.") { 200 } else { 1 };
        for n in 0..count {
            answer.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, n))));
        }
        fit(answer, most as u16)
    };
    let count = asked.clone();
    group.spawn("above-udp", async move {
        let mut buffer = [0; 4096];
        while let Ok((length, caller)) = udp.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            udp.send_to(&answer(&buffer[..length], 1232), caller).await.unwrap();
        }
    });
    group.spawn("above-tcp", async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; length.into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = answer(&bytes, 65535);
            stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat()).await.unwrap();
        }
    });
    (address, asked)
}

async fn started(servers: Vec<SocketAddr>, group: &Group) -> SocketAddr {
    let responder = Responder { zone: zone::tests::zone(), upstream: Upstream::of_servers(servers) };
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    serve(Arc::new(responder), udp, tcp, group);
    address
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn ask(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&message.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_all(&[&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat()).await.unwrap();
    let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

#[tokio::test]
async fn cluster_names_and_others() {
    let group = Group::root();
    let (server, asked) = above(&group).await;
    let us = started(vec![server], &group).await;
    let own = ask(us, &question("web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!((own.answers.len(), own.metadata.authoritative), (1, true));
    let missing = ask(us, &question("no.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    for _ in 0..3 {
        let other = ask(us, &question("example.org.", RecordType::A)).await;
        assert_eq!(other.answers[0].data.to_string(), "192.0.2.0");
        assert!(other.metadata.recursion_available);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "remembered");

    let alias = ask(us, &question("out.default.svc.cluster.local.", RecordType::A)).await;
    let data: Vec<_> = alias.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, ["example.org.", "192.0.2.0"]);
    let inner = ask(us, &question("alias.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(inner.answers.last().unwrap().data.to_string(), "10.43.0.80");
}

#[tokio::test]
async fn long_answers_come_by_tcp() {
    let group = Group::root();
    let (server, _) = above(&group).await;
    let us = started(vec![server], &group).await;
    let message = question("many.example.org.", RecordType::A);
    let short = ask(us, &message).await;
    assert!(short.metadata.truncation && short.answers.is_empty());
    assert_eq!(ask_tcp(us, &message).await.answers.len(), 200);
}

#[tokio::test]
async fn a_dead_server_is_passed_over() {
    let group = Group::root();
    let (server, _) = above(&group).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let us = started(vec![silent.local_addr().unwrap(), server], &group).await;
    for _ in 0..2 {
        let answer = ask(us, &question("example.org.", RecordType::A)).await;
        assert_eq!(answer.answers.len(), 1);
    }
}

#[tokio::test]
async fn without_servers_above_the_cluster_is_answered_and_the_rest_refused_at_once() {
    let group = Group::root();
    let us = started(Vec::new(), &group).await;
    let own = ask(us, &question("web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(own.answers.len(), 1);
    let other = ask(us, &question("example.org.", RecordType::A)).await;
    assert_eq!(other.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_loop_ends() {
    let group = Group::root();
    // The server above sends every question back to us.
    let relay = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let us = started(vec![relay.local_addr().unwrap()], &group).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    group.spawn("relay", async move {
        let mut buffer = [0; 4096];
        while let Ok((length, _)) = relay.recv_from(&mut buffer).await {
            counted.fetch_add(1, Ordering::Relaxed);
            let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            onward.send_to(&buffer[..length], us).await.unwrap();
        }
    });
    let answer = ask(us, &question("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(count.load(Ordering::Relaxed) <= 2, "{count:?}");
}

#[tokio::test]
async fn what_is_no_question() {
    let group = Group::root();
    let us = started(Vec::new(), &group).await;
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(us, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let two = {
        let mut message = question("a.example.", RecordType::A);
        message.add_query(Query::query(Name::from_ascii("b.example.").unwrap(), RecordType::A));
        message
    };
    assert_eq!(ask(us, &two).await.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(malformed(&[0, 7, 1, 0, 0, 9]).map(|b| b[1]), Some(7));
    assert_eq!(malformed(&[0, 7, 0x81]), None, "never answer an answer");
}
