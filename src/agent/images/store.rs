//! Writing images into containerd without pulling: content store, image store and leases.
//!
//! Works from containerd 1.6 on, which has no Transfer service. The blobs are written under a lease so that the
//! collector leaves them alone until the image names them; a manifest's labels keep what it refers to.

use crate::agent::pause;
use anyhow::{Context, bail};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::types::Descriptor;
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use tonic::Request;
use tonic::transport::Channel;

/// CRI's namespace in containerd.
const NAMESPACE: &str = "k8s.io";
/// Marks images that this node got from a file: never collected.
pub const IMPORTED_LABEL: &str = "kedge.io/imported";
/// containerd 1.7 and later tells the kubelet by this one that an image is pinned.
const PINNED_LABEL: &str = "io.cri-containerd.pinned";
/// A lease left behind by a crash ends by itself.
const LEASE_HOURS: u64 = 24;
/// Largest piece of a blob in one message.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The image side of containerd's own API.
#[derive(Clone)]
pub struct Store {
    channel: Channel,
}

/// An open lease; [`Store::end_lease`] closes it.
pub struct Lease(String);

/// One blob as a manifest refers to it.
#[derive(Clone, Debug)]
pub struct Part {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

fn leased<T>(message: T, lease: &Lease) -> anyhow::Result<Request<T>> {
    let mut request = request(message);
    request.metadata_mut().insert("containerd-lease", lease.0.parse().context("lease id")?);
    Ok(request)
}

impl Store {
    pub fn new(channel: Channel) -> Self {
        Store { channel }
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }

    pub async fn begin_lease(&self) -> anyhow::Result<Lease> {
        let id = format!("kedge-import-{}", uuid::Uuid::new_v4());
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(LEASE_HOURS as i64);
        // While the clock is not set it may jump past any end. One that then stays holds blobs that the next import uses.
        let ends = crate::time::corrected().is_none();
        let label = ("containerd.io/gc.expire".to_owned(), until.to_string());
        let labels = HashMap::from_iter(Some(label).filter(|_| ends));
        let create = api::CreateRequest { id: id.clone(), labels };
        LeasesClient::new(self.channel.clone()).create(request(create)).await.context("making a lease")?;
        Ok(Lease(id))
    }

    pub async fn end_lease(&self, lease: Lease) {
        let delete = api::DeleteRequest { id: lease.0, sync: false };
        // A lease that stays ends by itself.
        let _ = LeasesClient::new(self.channel.clone()).delete(request(delete)).await;
    }

    /// Write one blob; gives its digest. `expected` empty: whatever it has. There already: nothing happens.
    pub async fn write(
        &self,
        lease: &Lease,
        name: &str,
        expected: &str,
        labels: HashMap<String, String>,
        chunks: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> anyhow::Result<String> {
        let reference = format!("kedge-{name}-{}", uuid::Uuid::new_v4());
        let (wanted, writer) = (expected.to_owned(), reference.clone());
        let pieces = chunks.map(Some).chain(futures::stream::once(futures::future::ready(None)));
        let writes = pieces.scan(0i64, move |written, piece| {
            let offset = *written;
            let mut message = api::WriteContentRequest { r#ref: writer.clone(), offset, ..Default::default() };
            match piece {
                Some(data) => {
                    *written += data.len() as i64;
                    message.action = api::WriteAction::Write as i32;
                    message.data = data;
                }
                None => {
                    message.action = api::WriteAction::Commit as i32;
                    message.total = offset;
                    message.expected = wanted.clone();
                    message.labels = labels.clone();
                }
            }
            futures::future::ready(Some(message))
        });
        let answers = self.content().write(leased(writes, lease)?).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(status) if status.code() == tonic::Code::AlreadyExists => return Ok(expected.to_owned()),
            Err(status) => return Err(status).context("writing content"),
        };
        let mut answers = answers.into_inner();
        let mut digest = String::new();
        loop {
            match answers.message().await {
                Ok(Some(answer)) => digest = answer.digest,
                Ok(None) => break,
                // The digest is in the text: "content sha256:…: already exists".
                Err(status) if status.code() == tonic::Code::AlreadyExists => {
                    let abort = api::AbortRequest { r#ref: reference.clone() };
                    let _ = self.content().abort(request(abort)).await;
                    digest = digest_in(status.message()).unwrap_or(expected).to_owned();
                    break;
                }
                Err(status) => return Err(status).with_context(|| format!("writing {name}")),
            }
        }
        if digest.is_empty() {
            bail!("containerd did not say the digest of {name}");
        }
        Ok(digest)
    }

    /// Write bytes that are in memory.
    pub async fn write_bytes(
        &self,
        lease: &Lease,
        blob: &pause::Blob,
        labels: HashMap<String, String>,
    ) -> anyhow::Result<()> {
        let chunks: Vec<Vec<u8>> = blob.bytes.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect();
        let name = blob.digest.clone();
        self.write(lease, &name, &blob.digest, labels, futures::stream::iter(chunks)).await.map(drop)
    }

    /// Write a manifest with labels that keep its configuration and layers, and name it.
    pub async fn write_manifest(
        &self,
        lease: &Lease,
        manifest: &pause::Blob,
        config: &Part,
        layers: &[Part],
    ) -> anyhow::Result<()> {
        let mut labels = HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), config.digest.clone())]);
        for (n, layer) in layers.iter().enumerate() {
            labels.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.clone());
        }
        self.write_bytes(lease, manifest, labels.clone()).await?;
        // Content that was there already (from a pull, or half an import) has whatever labels it has.
        let info = api::Info { digest: manifest.digest.clone(), labels, ..Default::default() };
        let update = api::UpdateRequest { info: Some(info), update_mask: None };
        self.content().update(leased(update, lease)?).await.context("labelling the manifest")?;
        Ok(())
    }

    /// Give an image a name; an image of that name is replaced. CRI learns of it by containerd's event.
    pub async fn tag(&self, name: &str, manifest: &Part) -> anyhow::Result<()> {
        let labels = HashMap::from([
            (IMPORTED_LABEL.to_owned(), "true".to_owned()),
            (PINNED_LABEL.to_owned(), "pinned".to_owned()),
        ]);
        let target = Descriptor {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest.clone(),
            size: manifest.size,
            annotations: HashMap::new(),
        };
        let image = api::Image { name: name.into(), labels, target: Some(target), ..Default::default() };
        let create = api::CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        match self.images().create(request(create)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let update = api::UpdateImageRequest { image: Some(image), ..Default::default() };
                self.images().update(request(update)).await.with_context(|| format!("updating image {name}"))?;
                Ok(())
            }
            Err(status) => Err(status).with_context(|| format!("naming image {name}")),
        }
    }

    /// Imported images: name → manifest digest.
    pub async fn imported(&self) -> anyhow::Result<HashMap<String, String>> {
        let list = api::ListImagesRequest { filters: vec![format!("labels.\"{IMPORTED_LABEL}\"==true")] };
        let images = self.images().list(request(list)).await.context("listing images")?.into_inner().images;
        Ok(images.into_iter().map(|i| (i.name, i.target.unwrap_or_default().digest)).collect())
    }
}

/// The first digest in an error text.
fn digest_in(text: &str) -> Option<&str> {
    let start = text.find("sha256:")?;
    text.get(start..start + "sha256:".len() + 64)
}

/// Make sure that the pause image is there: written from the executable, nothing pulled.
pub async fn ensure_pause(store: &Store) -> anyhow::Result<()> {
    let image = pause::image()?;
    if store.imported().await?.get(pause::IMAGE) == Some(&image.manifest.digest) {
        return Ok(());
    }
    let lease = store.begin_lease().await?;
    let done = write_pause(store, &lease, &image).await;
    store.end_lease(lease).await;
    done.context("importing the pause image")
}

async fn write_pause(store: &Store, lease: &Lease, image: &pause::Image) -> anyhow::Result<()> {
    let part = |blob: &pause::Blob, media_type: &str| Part {
        media_type: media_type.to_owned(),
        digest: blob.digest.clone(),
        size: blob.bytes.len() as i64,
    };
    store.write_bytes(lease, &image.layer, HashMap::new()).await?;
    store.write_bytes(lease, &image.config, HashMap::new()).await?;
    let (config, layer) = (part(&image.config, pause::CONFIG_TYPE), part(&image.layer, pause::LAYER_TYPE));
    store.write_manifest(lease, &image.manifest, &config, &[layer]).await?;
    store.tag(pause::IMAGE, &part(&image.manifest, pause::MANIFEST_TYPE)).await
}
