//! The standard gRPC health check (`grpc.health.v1.Health/Check`), one call.

use prost::Message;
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthAnswer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `ServingStatus.SERVING`
const SERVING: i32 = 1;

/// One protobuf message each way.
#[derive(Default)]
struct HealthCodec;

impl Codec for HealthCodec {
    type Encode = HealthRequest;
    type Decode = HealthAnswer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        HealthCodec
    }

    fn decoder(&mut self) -> Self {
        HealthCodec
    }
}

impl Encoder for HealthCodec {
    type Item = HealthRequest;
    type Error = tonic::Status;

    fn encode(&mut self, item: HealthRequest, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        item.encode(to).map_err(|e| tonic::Status::internal(e.to_string()))
    }
}

impl Decoder for HealthCodec {
    type Item = HealthAnswer;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<HealthAnswer>, tonic::Status> {
        HealthAnswer::decode(from).map(Some).map_err(|e| tonic::Status::internal(e.to_string()))
    }
}

/// Ask; Err: the probe's failure, in upstream's words.
pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let timed_out =
        || format!("timeout: failed to connect service \"{shown}\" within {limit:?}: context deadline exceeded");
    match tokio::time::timeout(limit, call(&shown, service)).await {
        Ok(result) => result.map_err(|why| if why == "connect" { timed_out() } else { why }),
        Err(_) => Err(timed_out()),
    }
}

async fn call(address: &str, service: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    let channel = endpoint.user_agent("kube-probe/1.37").map_err(|e| e.to_string())?;
    let channel = channel.connect().await.map_err(|_| "connect".to_owned())?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthRequest { service: service.to_owned() });
    match client.unary(request, path, HealthCodec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => Err(format!("service unhealthy (responded with \"{}\")", name(answer.get_ref().status))),
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)".into())
        }
        Err(status) => Err(format!("error: health rpc failed: {}", status.message())),
    }
}

fn name(status: i32) -> &'static str {
    match status {
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "?",
    }
}
