//! CertificateSigningRequest (`certificates.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    scope: Scope::Cluster,
    short_names: &["csr"],
    subresources: &[Subresource { name: "approval", verbs: &["get", "patch", "update"], kind: None }, STATUS],
    storage: "certificatesigningrequests",
    selectable: &["spec.signerName"],
    columns: &[
        Column::NAME,
        Column::AGE,
        text("SignerName"),
        text("Requestor"),
        text("RequestedDuration"),
        text("Condition"),
    ],
    strategy: &CertificateSigningRequest,
    ..Kind::BASE
};

struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn row(&self, csr: &Object, now: i64) -> Vec<Value> {
        let duration = int_at(csr, &["spec", "expirationSeconds"]).map(crate::time::human_duration);
        vec![
            csr.name().into(),
            age(csr, now),
            string(csr, &["spec", "signerName"]),
            string(csr, &["spec", "username"]),
            or_none(&duration.unwrap_or_default()),
            state(csr).into(),
        ]
    }
}

fn state(csr: &Object) -> String {
    let has = |kind: &str| {
        let conditions = csr.get("status").map(|s| list(s, "conditions")).unwrap_or_default();
        conditions.iter().any(|c| c.str_at(&["type"]) == kind)
    };
    let decision = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if csr.str_at(&["status", "certificate"]).is_empty() { "" } else { ",Issued" };
    format!("{decision}{failed}{issued}")
}
