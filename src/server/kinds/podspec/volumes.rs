//! Volumes of a pod and their sources.

use crate::server::kinds::certificates::certificatesigningrequest::signer_name;
use crate::server::kinds::core::persistentvolumeclaim;
use crate::server::kinds::view::View;
use crate::server::kinds::{names, rules};
use std::collections::{BTreeSet, HashMap};

const MAX_FILE_MODE: i64 = 0o777;
/// A token that lives shorter than this would be renewed all the time.
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
/// Life of a pod's certificate; signers under `kubernetes.io` give shorter ones.
const MIN_CERTIFICATE_SECONDS: i64 = 3600;
const MAX_CERTIFICATE_SECONDS: i64 = 91 * 24 * 3600;
const MAX_KUBERNETES_CERTIFICATE_SECONDS: i64 = 24 * 3600;
const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// What a pod's downward API volume can show.
const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Check all volumes; returns the good ones by name, for mounts to refer to.
pub(super) fn volumes<'a>(volumes: &View<'a>, pod_name: Option<&str>) -> HashMap<&'a str, View<'a>> {
    let mut seen = BTreeSet::new();
    let mut by_name = HashMap::new();
    let created: Vec<String> = volumes
        .items()
        .filter(|v| v.get("ephemeral").is_set())
        .filter_map(|v| pod_name.map(|pod| format!("{pod}-{}", v.get("name").str())))
        .collect();
    for volume in volumes.items() {
        volume_sources(&volume, POD_SOURCES);
        let name = volume.get("name");
        if name.require() {
            name.format(names::dns_label);
            if !seen.insert(name.str()) {
                name.duplicate();
            }
        }
        let claim = volume.at(&["persistentVolumeClaim", "claimName"]);
        if created.iter().any(|c| c == claim.str()) {
            claim.invalid("must not reference a PVC that gets created for an ephemeral volume");
        }
        by_name.insert(name.str(), volume);
    }
    by_name
}

/// A volume type and what is wrong with one.
pub type Source = (&'static str, fn(&View<'_>));

/// Volume types of pods.
const POD_SOURCES: &[Source] = &[
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", |s| required(s, &["pdName"])),
    ("awsElasticBlockStore", |s| required(s, &["volumeID"])),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", |s| required(s, &["endpoints", "path"])),
    ("flocker", |_| ()),
    ("persistentVolumeClaim", |s| required(s, &["claimName"])),
    ("rbd", |s| required(s, &["monitors", "image"])),
    ("cinder", |s| required(s, &["volumeID"])),
    ("cephfs", |s| required(s, &["monitors"])),
    ("quobyte", |s| required(s, &["registry", "volume"])),
    ("downwardAPI", downward_api),
    ("fc", fibre_channel),
    ("flexVolume", |s| required(s, &["driver"])),
    ("configMap", config_map),
    ("azureFile", |s| required(s, &["secretName", "shareName"])),
    ("vsphereVolume", |s| required(s, &["volumePath"])),
    ("photonPersistentDisk", |s| required(s, &["pdID"])),
    ("portworxVolume", |s| required(s, &["volumeID"])),
    ("azureDisk", |s| required(s, &["diskName", "diskURI"])),
    ("storageos", |_| ()),
    ("projected", projected),
    ("scaleIO", |s| required(s, &["gateway", "system", "volumeName"])),
    ("csi", csi),
    ("ephemeral", ephemeral),
    ("image", |_| ()),
];

/// Exactly one source.
pub fn volume_sources(volume: &View<'_>, known: &[Source]) {
    let mut found = 0;
    for (name, rule) in known {
        let source = volume.get(name);
        if !source.is_set() {
            continue;
        }
        found += 1;
        if found == 1 { rule(&source) } else { source.forbidden("may not specify more than 1 volume type") }
    }
    if found == 0 {
        volume.required("must specify a volume type");
    }
}

fn required(source: &View<'_>, fields: &[&str]) {
    fields.iter().for_each(|field| _ = source.get(field).require());
}

fn empty_dir(source: &View<'_>) {
    let limit = source.get("sizeLimit");
    if limit.quantity().is_some_and(|q| q.sign() < 0) {
        limit.forbidden("SizeLimit field must be a valid resource quantity");
    }
}

pub fn host_path(source: &View<'_>) {
    if source.get("path").require() {
        rules::no_backsteps(&source.get("path"));
        source.get("type").one_of_if_set(HOST_PATH_TYPES);
    }
}

fn git_repo(source: &View<'_>) {
    required(source, &["repository"]);
    rules::descending_path(&source.get("directory"));
}

fn nfs(source: &View<'_>) {
    required(source, &["server", "path"]);
    let path = source.get("path");
    if !path.str().starts_with('/') {
        path.invalid_value(path.str(), "must be an absolute path");
    }
}

fn iscsi(source: &View<'_>) {
    required(source, &["targetPortal", "iqn"]);
    let iqn = source.get("iqn");
    if !iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|p| iqn.str().starts_with(p)) {
        iqn.invalid("must be valid format starting with iqn, eui, or naa");
    }
    source.get("lun").in_range(0, 255);
    let authenticates = source.get("chapAuthDiscovery").is_true() || source.get("chapAuthSession").is_true();
    if authenticates && !source.get("secretRef").is_set() {
        source.get("secretRef").required("");
    }
}

fn fibre_channel(source: &View<'_>) {
    let (names, ids) = (source.get("targetWWNs"), source.get("wwids"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => names.required("must specify either targetWWNs or wwids, but not both"),
        (false, false) => names.invalid("targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !names.is_empty() {
        let lun = source.get("lun");
        if lun.is_set() { lun.in_range(0, 255) } else { lun.required("lun is required if targetWWNs is specified") }
    }
}

fn file_mode(mode: &View<'_>) {
    if mode.int().is_some_and(|m| !(0..=MAX_FILE_MODE).contains(&m)) {
        mode.invalid("must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn secret(source: &View<'_>) {
    required(source, &["secretName"]);
    file_mode(&source.get("defaultMode"));
    source.get("items").items().for_each(|item| key_to_path(&item));
}

fn config_map(source: &View<'_>) {
    required(source, &["name"]);
    file_mode(&source.get("defaultMode"));
    source.get("items").items().for_each(|item| key_to_path(&item));
}

fn key_to_path(item: &View<'_>) {
    required(item, &["key", "path"]);
    rules::local_path(&item.get("path"));
    file_mode(&item.get("mode"));
}

fn downward_api(source: &View<'_>) {
    file_mode(&source.get("defaultMode"));
    // Upstream names the list, not the item.
    source.get("items").items().for_each(|item| downward_file(&item.named(source.path().clone())));
}

fn downward_file(file: &View<'_>) {
    required(file, &["path"]);
    rules::local_path(&file.get("path"));
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if field.is_set() {
        super::env::field_selector(&field, VOLUME_FIELDS);
        if resource.is_set() {
            file.invalid_value("resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if resource.is_set() {
        super::env::resource_selector(&resource, true);
    } else {
        file.required("one of fieldRef and resourceFieldRef is required");
    }
    file_mode(&file.get("mode"));
}

fn projected(source: &View<'_>) {
    file_mode(&source.get("defaultMode"));
    let mut paths = BTreeSet::new();
    for part in source.get("sources").items() {
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        if kinds.iter().filter(|k| part.get(k).is_set()).count() > 1 {
            part.forbidden("may not specify more than 1 volume type per source");
        }
        for files in ["secret", "configMap"].map(|k| part.get(k)).into_iter().filter(View::is_set) {
            required(&files, &["name"]);
            for item in files.get("items").items() {
                key_to_path(&item);
                unique_path(source, item.get("path").str(), files.get("name").str(), &mut paths);
            }
        }
        let downward = part.get("downwardAPI");
        for item in downward.get("items").items() {
            downward_file(&item.named(downward.path().clone()));
            let path = item.get("path").str();
            unique_path(source, path, path, &mut paths);
        }
        service_account_token(source, &part.get("serviceAccountToken"));
        let bundle = part.get("clusterTrustBundle");
        if bundle.is_set() {
            trust_bundle(&bundle);
            let path = bundle.get("path").str();
            unique_path(source, path, path, &mut paths);
        }
        pod_certificate(source, &part.get("podCertificate"), &mut paths);
    }
}

fn unique_path<'a>(source: &View<'_>, path: &'a str, shown: &str, paths: &mut BTreeSet<&'a str>) {
    if !path.is_empty() && !paths.insert(path) {
        source.invalid_value(shown, "conflicting duplicate paths");
    }
}

fn service_account_token(source: &View<'_>, token: &View<'_>) {
    if !token.is_set() {
        return;
    }
    let seconds = token.get("expirationSeconds");
    if seconds.number() < MIN_TOKEN_SECONDS {
        seconds.invalid_value(seconds.number(), "may not specify a duration less than 10 minutes");
    } else if seconds.number() > MAX_TOKEN_SECONDS {
        seconds.invalid("may not specify a duration larger than 2^32 seconds");
    }
    let path = token.get("path").named(source.path().child("path"));
    if path.require() {
        rules::local_path(&path);
    }
}

fn trust_bundle(bundle: &View<'_>) {
    let (name, signer) = (bundle.get("name"), bundle.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => bundle.invalid("only one of name and signerName may be used"),
        (false, false) => bundle.required("either name or signerName must be specified"),
        (true, _) if name.is_empty() => name.required("must be a valid object name"),
        (_, true) if signer.is_empty() => signer.required("must be a valid signer name"),
        (_, true) => rules::label_selector(&bundle.get("labelSelector")),
        _ => {}
    }
    required(bundle, &["path"]);
    rules::local_path(&bundle.get("path"));
}

/// KEP-4317.
fn pod_certificate<'a>(source: &View<'_>, certificate: &View<'a>, paths: &mut BTreeSet<&'a str>) {
    if !certificate.is_set() {
        return;
    }
    let signer = certificate.get("signerName");
    signer_name(&signer);
    certificate.get("keyType").require_one_of(KEY_TYPES);
    let seconds = certificate.get("maxExpirationSeconds");
    if let Some(wanted) = seconds.int() {
        let ours =
            signer.str().split('/').next().is_some_and(|d| d == "kubernetes.io" || d.ends_with(".kubernetes.io"));
        let most = if ours { MAX_KUBERNETES_CERTIFICATE_SECONDS } else { MAX_CERTIFICATE_SECONDS };
        if wanted < MIN_CERTIFICATE_SECONDS {
            seconds.invalid(format!("if provided, maxExpirationSeconds must be >= {MIN_CERTIFICATE_SECONDS}"));
        }
        if wanted > most {
            seconds.invalid(format!("if provided, maxExpirationSeconds must be <= {most}"));
        }
    }
    let files = ["credentialBundlePath", "keyPath", "certificateChainPath"].map(|name| certificate.get(name));
    for file in files.iter().filter(|file| !file.is_empty()) {
        rules::local_path(file);
        unique_path(source, file.str(), file.str(), paths);
    }
    if files.iter().all(View::is_empty) {
        certificate.required("specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}

fn csi(source: &View<'_>) {
    csi_driver_name(&source.get("driver"));
    let secret = source.get("nodePublishSecretRef");
    if secret.is_set() && secret.get("name").require() {
        secret.get("name").format(names::dns_subdomain);
    }
}

/// Name of a CSI driver: a subdomain, of any case, of at most 63 bytes.
pub fn csi_driver_name(driver: &View<'_>) {
    const MAX_BYTES: usize = 63;
    driver.require();
    if driver.len() > MAX_BYTES {
        driver.too_long(MAX_BYTES);
    }
    if let Err(why) = names::dns_subdomain(&driver.str().to_lowercase()) {
        driver.invalid_value(driver.str(), why);
    }
}

fn ephemeral(source: &View<'_>) {
    let template = source.get("volumeClaimTemplate");
    if !template.is_set() {
        return template.required("");
    }
    let metadata = template.get("metadata");
    rules::annotations(&metadata.get("annotations"));
    rules::labels(&metadata.get("labels"));
    for (field, _) in metadata.entries().filter(|(f, v)| !v.is_empty() && !["labels", "annotations"].contains(f)) {
        metadata.get(field).forbidden("cannot be set");
    }
    persistentvolumeclaim::validate_spec(&template.get("spec"));
}
