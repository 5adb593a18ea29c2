//! Takes the field descriptions for `kubectl explain` out of the `k8s-openapi` dependency into a compressed file, so
//! that the repository holds no copy of them. Also names the state of what OpenAPI documents are made from, for their
//! ETags. No network, no other programs.
//!
//! `descriptions.zst` holds lines, types sorted by name: `T <tab> type name <tab> text` and, after its type, `F <tab> field <tab> text`;
//! texts are JSON strings.

use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io::Write;
use std::path::Path;

/// What OpenAPI documents are made from, besides the kinds table and the descriptions.
const SOURCES: &[&str] = &["src/server/schema/table.tsv", "src/server/openapi"];

macro_rules! definitions {
    ($generator:ident: $($module:path { $($kind:ident)* })*) => { $({
        use $module as module;
        $( add::<module::$kind>($generator); )*
    })* };
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn main() {
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let text = descriptions();
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
        hash(Path::new(source), &mut hasher);
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=KEDGE_OPENAPI_STATE={:016x}", hasher.finish());
    let compressed = zstd::encode_all(text.as_bytes(), 19).expect("zstd compresses");
    let mut file = std::fs::File::create(Path::new(&out).join("descriptions.zst")).expect("OUT_DIR is writable");
    file.write_all(&compressed).expect("OUT_DIR is writable");
}

fn hash(path: &Path, hasher: &mut DefaultHasher) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a readable source folder");
        let mut paths: Vec<_> = entries.map(|e| e.expect("a readable source folder").path()).collect();
        paths.sort();
        paths.iter().for_each(|p| hash(p, hasher));
    } else {
        hasher.write(&std::fs::read(path).expect("a readable source file"));
    }
}

fn descriptions() -> String {
    let mut generator = SchemaGenerator::default();
    every_kind(&mut generator);
    let mut out = String::new();
    let mut definitions: Vec<(String, Value)> = generator.take_definitions(true).into_iter().collect();
    definitions.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, schema) in definitions {
        line(&mut out, "T", &name, &schema);
        let fields = schema.get("properties").and_then(Value::as_object);
        fields.into_iter().flatten().for_each(|(field, schema)| line(&mut out, "F", field, schema));
    }
    out
}

fn line(out: &mut String, letter: &str, name: &str, schema: &Value) {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or("");
    out.push_str(&format!("{letter}\t{name}\t{}\n", Value::from(text)));
}

/// Every generally available kind; what they refer to comes along.
fn every_kind(generator: &mut SchemaGenerator) {
    definitions! { generator:
        k8s_openapi::api::admissionregistration::v1 {
            MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
        }
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 { CustomResourceDefinition }
        k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 { APIService }
        k8s_openapi::api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        k8s_openapi::api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
        k8s_openapi::api::authorization::v1 {
            LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
        }
        k8s_openapi::api::autoscaling::v1 { HorizontalPodAutoscaler Scale }
        k8s_openapi::api::autoscaling::v2 { HorizontalPodAutoscaler }
        k8s_openapi::api::batch::v1 { CronJob Job }
        k8s_openapi::api::certificates::v1 { CertificateSigningRequest ClusterTrustBundle PodCertificateRequest }
        k8s_openapi::api::coordination::v1 { Lease }
        k8s_openapi::api::core::v1 {
            Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        }
        k8s_openapi::api::discovery::v1 { EndpointSlice }
        k8s_openapi::api::events::v1 { Event }
        k8s_openapi::api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
        k8s_openapi::api::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
        k8s_openapi::api::node::v1 { RuntimeClass }
        k8s_openapi::api::policy::v1 { Eviction PodDisruptionBudget }
        k8s_openapi::api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
        k8s_openapi::api::resource::v1 {
            DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice
        }
        k8s_openapi::api::scheduling::v1 { PriorityClass }
        k8s_openapi::api::storage::v1 {
            CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
        }
        k8s_openapi::api::storagemigration::v1 { StorageVersionMigration }
        k8s_openapi::apimachinery::pkg::apis::meta::v1 {
            APIGroup APIGroupList APIResourceList DeleteOptions Patch Status
        }
        k8s_openapi::apimachinery::pkg::api::resource { Quantity }
        k8s_openapi::apimachinery::pkg::util::intstr { IntOrString }
    }
}
