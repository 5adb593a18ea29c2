//! The CRI client: runtime and image services over one unix socket, with a time limit on every call.
//!
//! The connection is lazy and renews itself, so a restarted containerd needs no new client.

use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A failed call, printed as Kubernetes users know it from events.
#[derive(Clone, Debug)]
pub struct Error(tonic::Status);

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn is_not_found(&self) -> bool {
        self.0.code() == tonic::Code::NotFound
    }

    pub fn is_unimplemented(&self) -> bool {
        self.0.code() == tonic::Code::Unimplemented
    }

    pub fn is_unavailable(&self) -> bool {
        self.0.code() == tonic::Code::Unavailable
    }

    pub fn is_deadline_exceeded(&self) -> bool {
        self.0.code() == tonic::Code::DeadlineExceeded
    }

    pub fn message(&self) -> &str {
        self.0.message()
    }

    fn deadline() -> Self {
        Error(tonic::Status::deadline_exceeded("context deadline exceeded"))
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error(status)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {:?} desc = {}", self.0.code(), self.0.message())
    }
}

impl std::error::Error for Error {}

/// Most calls: lookups and short work.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Making sandboxes and containers (upstream's `runtime-request-timeout` is 2 minutes).
const CREATE_TIMEOUT: Duration = Duration::from_secs(240);
/// Pulls are watched for progress by containerd itself; this is the last resort.
const PULL_TIMEOUT: Duration = Duration::from_secs(3600);
/// Lists of many containers are larger than tonic's 4 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Handle to a runtime. Cheap to clone.
#[derive(Clone)]
pub struct Cri {
    channel: Channel,
}

/// Only the labels that pods carry.
pub type Labels = HashMap<String, String>;

async fn within<T>(limit: Duration, call: impl Future<Output = std::result::Result<T, tonic::Status>>) -> Result<T> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(Error::deadline().0)).map_err(Error)
}

impl Cri {
    /// A client of a unix socket; nothing is dialled before the first call. Needs a tokio runtime.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        Ok(Cri { channel: endpoint.connect_lazy() })
    }

    /// The connection, for containerd's own services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub async fn version(&self) -> Result<cri::VersionResponse> {
        let request = cri::VersionRequest { version: "v1".into() };
        Ok(within(CALL_TIMEOUT, self.runtime().version(request)).await?.into_inner())
    }

    pub async fn status(&self) -> Result<cri::RuntimeStatus> {
        let request = cri::StatusRequest { verbose: false };
        let answer = within(CALL_TIMEOUT, self.runtime().status(request)).await?.into_inner();
        Ok(answer.status.unwrap_or_default())
    }

    pub async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.into() });
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
        within(CALL_TIMEOUT, self.runtime().update_runtime_config(request)).await.map(drop)
    }

    // -- sandboxes

    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        Ok(within(CREATE_TIMEOUT, self.runtime().run_pod_sandbox(request)).await?.into_inner().pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        ignore_missing(within(CREATE_TIMEOUT, self.runtime().stop_pod_sandbox(request)).await.map(drop))
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        ignore_missing(within(CREATE_TIMEOUT, self.runtime().remove_pod_sandbox(request)).await.map(drop))
    }

    /// Status; with `verbose`, also containerd's JSON (`info`), which names the process.
    pub async fn sandbox_status(&self, id: &str, verbose: bool) -> Result<cri::PodSandboxStatusResponse> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose };
        Ok(within(CALL_TIMEOUT, self.runtime().pod_sandbox_status(request)).await?.into_inner())
    }

    pub async fn sandboxes(&self, label_selector: Labels) -> Result<Vec<cri::PodSandbox>> {
        let filter = cri::PodSandboxFilter { label_selector, ..Default::default() };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        Ok(within(CALL_TIMEOUT, self.runtime().list_pod_sandbox(request)).await?.into_inner().items)
    }

    // -- containers

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(within(CREATE_TIMEOUT, self.runtime().create_container(request)).await?.into_inner().container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: id.into() };
        within(CREATE_TIMEOUT, self.runtime().start_container(request)).await.map(drop)
    }

    /// The stop signal, then SIGKILL after `grace` (whole seconds). Returns when the container has ended.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout: grace.as_secs() as i64 };
        ignore_missing(within(CREATE_TIMEOUT + grace, self.runtime().stop_container(request)).await.map(drop))
    }

    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        ignore_missing(within(CREATE_TIMEOUT, self.runtime().remove_container(request)).await.map(drop))
    }

    pub async fn containers(&self, label_selector: Labels) -> Result<Vec<cri::Container>> {
        let filter = cri::ContainerFilter { label_selector, ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        Ok(within(CALL_TIMEOUT, self.runtime().list_containers(request)).await?.into_inner().containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer = within(CALL_TIMEOUT, self.runtime().container_status(request)).await?.into_inner();
        answer.status.ok_or_else(|| Error(tonic::Status::not_found("no status")))
    }

    pub async fn update_container(&self, id: &str, linux: cri::LinuxContainerResources) -> Result<()> {
        let request =
            cri::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(linux), ..Default::default() };
        within(CALL_TIMEOUT, self.runtime().update_container_resources(request)).await.map(drop)
    }

    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.into() };
        within(CALL_TIMEOUT, self.runtime().reopen_container_log(request)).await.map(drop)
    }

    /// Run a command and wait for it. A command that takes longer than `limit` is killed: deadline exceeded.
    pub async fn exec_sync(&self, id: &str, cmd: Vec<String>, limit: Duration) -> Result<cri::ExecSyncResponse> {
        let timeout = limit.as_secs().max(1) as i64;
        let request = cri::ExecSyncRequest { container_id: id.into(), cmd, timeout };
        // containerd counts itself; ours is only for a containerd that hangs.
        let slack = Duration::from_secs(5);
        Ok(within(limit + slack, self.runtime().exec_sync(request)).await?.into_inner())
    }

    // -- streaming: URLs on the runtime's own streaming server

    pub async fn exec_url(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(within(CALL_TIMEOUT, self.runtime().exec(request)).await?.into_inner().url)
    }

    pub async fn attach_url(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(within(CALL_TIMEOUT, self.runtime().attach(request)).await?.into_inner().url)
    }

    pub async fn port_forward_url(&self, sandbox: &str, port: Vec<i32>) -> Result<String> {
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.into(), port };
        Ok(within(CALL_TIMEOUT, self.runtime().port_forward(request)).await?.into_inner().url)
    }

    /// The runtime's own events; containerd 1.6 answers Unimplemented.
    pub async fn events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>> {
        Ok(self.runtime().get_container_events(cri::GetEventsRequest {}).await?.into_inner())
    }

    // -- statistics

    pub async fn sandbox_stats(&self) -> Result<Vec<cri::PodSandboxStats>> {
        let request = cri::ListPodSandboxStatsRequest { filter: None };
        Ok(within(CALL_TIMEOUT, self.runtime().list_pod_sandbox_stats(request)).await?.into_inner().stats)
    }

    pub async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>> {
        let request = cri::ListContainerStatsRequest { filter: None };
        Ok(within(CALL_TIMEOUT, self.runtime().list_container_stats(request)).await?.into_inner().stats)
    }

    // -- images

    /// None: not there.
    pub async fn image(&self, name: &str) -> Result<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(name)), verbose: false };
        match within(CALL_TIMEOUT, self.images().image_status(request)).await {
            Ok(answer) => Ok(answer.into_inner().image),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn image_list(&self) -> Result<Vec<cri::Image>> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(within(CALL_TIMEOUT, self.images().list_images(request)).await?.into_inner().images)
    }

    /// Pull; gives the image's reference.
    pub async fn pull(
        &self,
        name: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::PullImageRequest { image: Some(image_spec(name)), auth, sandbox_config: Some(sandbox) };
        Ok(within(PULL_TIMEOUT, self.images().pull_image(request)).await?.into_inner().image_ref)
    }

    pub async fn remove_image(&self, name: &str) -> Result<()> {
        let request = cri::RemoveImageRequest { image: Some(image_spec(name)) };
        ignore_missing(within(CALL_TIMEOUT, self.images().remove_image(request)).await.map(drop))
    }

    /// Where images are stored, for disk figures.
    pub async fn image_filesystem(&self) -> Result<cri::ImageFsInfoResponse> {
        Ok(within(CALL_TIMEOUT, self.images().image_fs_info(cri::ImageFsInfoRequest {})).await?.into_inner())
    }
}

fn image_spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.into(), ..Default::default() }
}

/// What is gone need not be stopped or removed.
fn ignore_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
