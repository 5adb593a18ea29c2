//! Image archives that lie in `<dir>/images`: imported at start and when they appear (air gap).
//!
//! Both common forms, in one pass and without unpacking to disk: `docker save` (manifest.json) and OCI layouts
//! (index.json), plain, gzip or zstd. What was imported is remembered by size and time of the file, so a start reads
//! no archive twice.

use super::reference;
use super::store::{CHUNK_BYTES, Lease, Part, Store};
use crate::agent::pause::{self, Blob};
use crate::task::Group;
use anyhow::{Context, bail};
use futures::SinkExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// How often the directory is looked at: one readdir, and one stat a file.
const SCAN_EVERY: Duration = Duration::from_secs(3);
/// A file that changed this recently may still be on its way.
const SETTLE: Duration = Duration::from_secs(2);
/// Files up to this size are also kept in memory: manifests and configurations are. Larger ones can only be layers.
const SMALL_BYTES: u64 = 4 << 20;
/// All small files of one archive together; more is not an image archive.
const SMALL_TOTAL_BYTES: u64 = 64 << 20;
/// Chunks on their way from the reader to containerd.
const CHUNKS_AHEAD: usize = 4;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    size: u64,
    modified: u64,
    /// Name → manifest digest.
    images: BTreeMap<String, String>,
}

/// Watches one directory.
pub struct Importer {
    store: Store,
    dir: PathBuf,
    state_file: PathBuf,
    seen: BTreeMap<String, Seen>,
    /// Files that failed, with the size and time they had: not tried again until they change.
    failed: BTreeMap<String, (u64, u64)>,
}

impl Importer {
    /// `dir` is made if missing; what was imported is remembered beside it.
    pub fn new(store: Store, agent_dir: &Path) -> anyhow::Result<Self> {
        let dir = agent_dir.join("images");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let state_file = agent_dir.join("imported.json");
        let seen = fs::read(&state_file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        Ok(Importer { store, dir, state_file, seen, failed: BTreeMap::new() })
    }

    /// Import what is there and what comes, until the group ends.
    pub async fn run(mut self, group: Group) {
        let mut verified = false;
        while !group.is_cancelled() {
            if let Err(error) = self.pass(!verified).await {
                warn!("importing images from {}: {error:#}", self.dir.display());
            } else {
                verified = true;
            }
            tokio::time::sleep(SCAN_EVERY).await;
        }
    }

    /// One look at the directory. `verify`: also ask containerd whether it still has what was imported earlier.
    async fn pass(&mut self, verify: bool) -> anyhow::Result<()> {
        let files = archives(&self.dir)?;
        if verify && files.iter().any(|(name, ..)| self.seen.contains_key(name)) {
            let present = self.store.imported().await?;
            self.seen.retain(|_, seen| seen.images.iter().all(|(name, digest)| present.get(name) == Some(digest)));
        }
        for (name, size, modified) in files {
            let known = self.seen.get(&name).is_some_and(|s| (s.size, s.modified) == (size, modified));
            if known || self.failed.get(&name) == Some(&(size, modified)) || still_written(modified) {
                continue;
            }
            let path = self.dir.join(&name);
            match import(&self.store, &path).await {
                Ok(images) => {
                    let names: Vec<&str> = images.keys().map(String::as_str).collect();
                    info!("imported {} from {}", names.join(", "), path.display());
                    self.failed.remove(&name);
                    self.seen.insert(name, Seen { size, modified, images });
                    self.save();
                }
                Err(error) => {
                    warn!("cannot import {}: {error:#}", path.display());
                    self.failed.insert(name, (size, modified));
                }
            }
        }
        Ok(())
    }

    fn save(&self) {
        let text = serde_json::to_vec(&self.seen).unwrap_or_default();
        if let Err(error) = crate::durable::write(&self.state_file, &text, crate::durable::PUBLIC) {
            warn!("writing {}: {error}", self.state_file.display());
        }
    }
}

/// Name, size and modification time (ns) of every archive in a directory.
fn archives(dir: &Path) -> anyhow::Result<Vec<(String, u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = [".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|end| name.ends_with(end));
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if wanted && !name.starts_with('.') && metadata.is_file() {
            let modified = metadata.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
            found.push((name, metadata.len(), modified.map_or(0, |d| d.as_nanos() as u64)));
        }
    }
    found.sort();
    Ok(found)
}

fn still_written(modified: u64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    // A time in the future says nothing (a clock that was set back).
    now >= modified && now - modified < SETTLE.as_nanos() as u64
}

/// Import one archive; gives the images' names and manifest digests.
pub async fn import(store: &Store, path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let lease = store.begin_lease().await?;
    let result = import_leased(store, &lease, path).await;
    store.end_lease(lease).await;
    result
}

/// What one pass over an archive leaves behind.
#[derive(Default)]
struct Contents {
    /// Small files, whole.
    small: HashMap<String, Vec<u8>>,
    /// Every regular file: digest and size of its blob in containerd, and whether it is gzip.
    blobs: HashMap<String, (String, i64, bool)>,
    /// Links, as `docker save` makes for layers that occur twice.
    links: HashMap<String, String>,
}

enum Piece {
    Begin { name: String, small: bool },
    Data(Vec<u8>),
    End,
    Link { name: String, target: String },
}

async fn import_leased(store: &Store, lease: &Lease, path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let (sender, mut receiver) = futures::channel::mpsc::channel::<anyhow::Result<Piece>>(CHUNKS_AHEAD);
    let path = path.to_owned();
    let reader = Group::blocking(move || read_archive(&path, sender));
    // The receiver moves in: when writing fails, it goes away and the reader stops.
    let writer = async move {
        let mut contents = Contents::default();
        let mut small_total = 0u64;
        while let Some(piece) = futures::StreamExt::next(&mut receiver).await {
            match piece? {
                Piece::Begin { name, small: true } => {
                    let mut bytes = Vec::new();
                    loop {
                        match futures::StreamExt::next(&mut receiver).await {
                            Some(Ok(Piece::Data(data))) => bytes.extend(data),
                            Some(Ok(Piece::End)) => break,
                            Some(Err(error)) => return Err(error),
                            _ => bail!("the archive ended inside {name}"),
                        }
                    }
                    small_total += bytes.len() as u64;
                    if small_total > SMALL_TOTAL_BYTES {
                        bail!("too many small files for an image archive");
                    }
                    contents.small.insert(name, bytes);
                }
                Piece::Begin { name, small: false } => {
                    write_large(store, lease, &mut receiver, &mut contents, name).await?
                }
                Piece::Link { name, target } => drop(contents.links.insert(name, target)),
                Piece::Data(_) | Piece::End => bail!("archive pieces out of order"),
            }
        }
        Ok(contents)
    };
    let (read, contents) = tokio::join!(reader, writer);
    read??;
    let mut contents = contents?;
    if let Some(manifest) = contents.small.get("manifest.json").cloned() {
        import_docker(store, lease, &mut contents, &manifest).await
    } else if let Some(index) = contents.small.get("index.json").cloned() {
        import_oci(store, lease, &mut contents, &index).await
    } else {
        bail!("neither manifest.json (docker save) nor index.json (OCI layout) in the archive")
    }
}

/// Stream one large file into the content store.
async fn write_large(
    store: &Store,
    lease: &Lease,
    receiver: &mut futures::channel::mpsc::Receiver<anyhow::Result<Piece>>,
    contents: &mut Contents,
    name: String,
) -> anyhow::Result<()> {
    let (mut chunks, stream) = futures::channel::mpsc::channel::<Vec<u8>>(1);
    let feed = async {
        let (mut size, mut gzip) = (0i64, false);
        loop {
            match futures::StreamExt::next(receiver).await {
                Some(Ok(Piece::Data(data))) => {
                    if size == 0 {
                        gzip = data.starts_with(&[0x1f, 0x8b]);
                    }
                    size += data.len() as i64;
                    // A closed channel means that the write failed; its error is the one to report.
                    let _ = chunks.send(data).await;
                }
                Some(Ok(Piece::End)) => {
                    chunks.close_channel();
                    return Ok((size, gzip));
                }
                Some(Err(error)) => return Err(error),
                _ => bail!("the archive ended inside {name}"),
            }
        }
    };
    // An archive that breaks off must not leave a short blob: the write is dropped with the error.
    let write = store.write(lease, "layer", "", HashMap::new(), stream);
    let ((size, gzip), digest) = futures::try_join!(feed, write)?;
    contents.blobs.insert(name, (digest, size, gzip));
    Ok(())
}

/// Read an archive and send its pieces; blocking.
fn read_archive(path: &Path, mut out: futures::channel::mpsc::Sender<anyhow::Result<Piece>>) -> anyhow::Result<()> {
    let mut send = |piece| futures::executor::block_on(out.send(piece)).map_err(|_| anyhow::anyhow!("import stopped"));
    let result = read_pieces(path, &mut |piece| send(Ok(piece)));
    if let Err(error) = result {
        let _ = send(Err(error));
    }
    Ok(())
}

fn read_pieces(path: &Path, send: &mut dyn FnMut(Piece) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(decompressed(path)?);
    for entry in archive.entries().context("reading the archive")? {
        let mut entry = entry.context("reading the archive")?;
        let name = clean(&entry.path().context("a file name")?);
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name()?.map(|t| t.into_owned()).unwrap_or_default();
            let base =
                if kind.is_symlink() { Path::new(&name).parent().unwrap_or(Path::new("")) } else { Path::new("") };
            send(Piece::Link { target: clean(&base.join(target)), name })?;
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        let size = entry.size();
        send(Piece::Begin { name, small: size <= SMALL_BYTES })?;
        let mut left = size;
        while left > 0 {
            let mut chunk = vec![0; (left as usize).min(CHUNK_BYTES)];
            entry.read_exact(&mut chunk).context("the archive is cut short")?;
            left -= chunk.len() as u64;
            send(Piece::Data(chunk))?;
        }
        send(Piece::End)?;
    }
    Ok(())
}

/// By content, not by name: files are renamed.
fn decompressed(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let n = file.read(&mut magic)?;
    let file = BufReader::with_capacity(1 << 18, File::open(path)?);
    Ok(match &magic[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

/// `./a/../b` → `b`: archives write names in several ways.
fn clean(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

impl Contents {
    /// A blob by its name in the archive; a small one is written now.
    async fn blob(&mut self, store: &Store, lease: &Lease, name: &str) -> anyhow::Result<(String, i64, bool)> {
        let mut name = clean(Path::new(name));
        for _ in 0..8 {
            let Some(target) = self.links.get(&name) else { break };
            name = target.clone();
        }
        if let Some(found) = self.blobs.get(&name) {
            return Ok(found.clone());
        }
        let bytes = self.small.get(&name).with_context(|| format!("the archive lacks {name}"))?;
        let gzip = bytes.starts_with(&[0x1f, 0x8b]);
        let blob = Blob::new(bytes.clone());
        let found = (blob.digest.clone(), blob.bytes.len() as i64, gzip);
        store.write_bytes(lease, &blob, HashMap::new()).await?;
        self.blobs.insert(name, found.clone());
        Ok(found)
    }

    /// A JSON document by digest, from an OCI layout.
    fn json<T: serde::de::DeserializeOwned>(&self, digest: &str) -> anyhow::Result<(T, &[u8])> {
        let bytes = self.small.get(&blob_path(digest)).with_context(|| format!("the archive lacks {digest}"))?;
        if pause::digest(bytes) != digest {
            bail!("{digest} has another content than its name says");
        }
        Ok((serde_json::from_slice(bytes).with_context(|| format!("reading {digest}"))?, bytes))
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// One entry of `docker save`'s manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

async fn import_docker(
    store: &Store,
    lease: &Lease,
    contents: &mut Contents,
    manifest: &[u8],
) -> anyhow::Result<BTreeMap<String, String>> {
    let entries: Vec<DockerImage> = serde_json::from_slice(manifest).context("reading manifest.json")?;
    let mut images = BTreeMap::new();
    for entry in entries {
        let (digest, size, _) = contents.blob(store, lease, &entry.config).await?;
        let config = Part { media_type: pause::CONFIG_TYPE.into(), digest, size };
        let mut layers = Vec::new();
        for layer in &entry.layers {
            let (digest, size, gzip) = contents.blob(store, lease, layer).await?;
            let media_type = if gzip { format!("{}+gzip", pause::LAYER_TYPE) } else { pause::LAYER_TYPE.to_owned() };
            layers.push(Part { media_type, digest, size });
        }
        let blob = Blob::new(serde_json::to_vec(&manifest_of(&config, &layers))?);
        store.write_manifest(lease, &blob, &config, &layers).await?;
        let part = manifest_part(&blob);
        for tag in entry.repo_tags.iter().flatten() {
            let name = reference::normalize(tag).with_context(|| format!("image name {tag:?}"))?;
            store.tag(&name, &part).await?;
            images.insert(name, part.digest.clone());
        }
    }
    if images.is_empty() {
        bail!("no image in the archive has a name");
    }
    Ok(images)
}

fn manifest_of(config: &Part, layers: &[Part]) -> serde_json::Value {
    let json = |p: &Part| serde_json::json!({"mediaType": p.media_type, "digest": p.digest, "size": p.size});
    serde_json::json!({
        "schemaVersion": 2, "mediaType": pause::MANIFEST_TYPE,
        "config": json(config), "layers": layers.iter().map(json).collect::<Vec<_>>(),
    })
}

fn manifest_part(blob: &Blob) -> Part {
    Part { media_type: pause::MANIFEST_TYPE.into(), digest: blob.digest.clone(), size: blob.bytes.len() as i64 }
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

async fn import_oci(
    store: &Store,
    lease: &Lease,
    contents: &mut Contents,
    index: &[u8],
) -> anyhow::Result<BTreeMap<String, String>> {
    let index: Index = serde_json::from_slice(index).context("reading index.json")?;
    let mut images = BTreeMap::new();
    for top in index.manifests {
        let annotation = |key: &str| top.annotations.get(key).cloned();
        let name = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
        let Some(name) = name.filter(|n| n.contains([':', '/'])) else { continue };
        let name = reference::normalize(&name).with_context(|| format!("image name {name:?}"))?;
        let digest = for_this_machine(contents, &top)?;
        let (manifest, bytes) = contents.json::<Manifest>(&digest)?;
        let blob = Blob::new(bytes.to_vec());
        let media_type = serde_json::from_slice::<Descriptor2>(&blob.bytes).ok().and_then(|m| m.media_type);
        for part in manifest.layers.iter().chain([&manifest.config]) {
            let (digest, ..) = contents.blob(store, lease, &blob_path(&part.digest)).await?;
            if digest != part.digest {
                bail!("{} has another content than its name says", part.digest);
            }
        }
        let part = |d: &Descriptor| Part { media_type: d.media_type.clone(), digest: d.digest.clone(), size: d.size };
        let layers: Vec<Part> = manifest.layers.iter().map(part).collect();
        store.write_manifest(lease, &blob, &part(&manifest.config), &layers).await?;
        let mut part = manifest_part(&blob);
        part.media_type = media_type.unwrap_or(part.media_type);
        store.tag(&name, &part).await?;
        images.insert(name, part.digest);
    }
    if images.is_empty() {
        bail!(
            "no image in the archive has a name (annotation io.containerd.image.name or \
               org.opencontainers.image.ref.name with a repository)"
        );
    }
    Ok(images)
}

#[derive(Deserialize)]
struct Descriptor2 {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
}

/// The manifest's digest; of a list, the one for this architecture.
fn for_this_machine(contents: &Contents, top: &Descriptor) -> anyhow::Result<String> {
    if !top.media_type.contains("index") && !top.media_type.contains("manifest.list") {
        return Ok(top.digest.clone());
    }
    let (index, _) = contents.json::<Index>(&top.digest)?;
    let ours = |d: &&Descriptor| {
        d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == pause::architecture())
    };
    let found = index.manifests.iter().find(ours);
    Ok(found.with_context(|| format!("no image for linux/{}", pause::architecture()))?.digest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_archives() {
        for (name, wanted) in [("./a/b", "a/b"), ("a/../b", "b"), ("/x", "x"), ("../../etc", "etc")] {
            assert_eq!(clean(Path::new(name)), wanted);
        }
    }

    /// Pieces of an archive in each compression, with a link, and of one that breaks off.
    #[test]
    fn pieces_of_archives() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        tar.append_data(&mut header, "./a/layer.tar", &b"abc"[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
        let plain = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &plain).unwrap();
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let mut seen = Vec::new();
            let result = read_pieces(&path, &mut |piece| {
                seen.push(match piece {
                    Piece::Begin { name, .. } => format!("file {name}"),
                    Piece::Data(data) => String::from_utf8_lossy(&data).into_owned(),
                    Piece::End => "end".into(),
                    Piece::Link { name, target } => format!("{name} -> {target}"),
                });
                Ok(())
            });
            result.map(|()| seen)
        };
        let wanted = ["file a/layer.tar", "abc", "end", "b/layer.tar -> a/layer.tar"];
        for bytes in [plain.clone(), gzip.finish().unwrap(), zstd] {
            assert_eq!(read(&bytes).unwrap(), wanted);
        }
        assert!(read(&plain[..514]).is_err());
    }
}
