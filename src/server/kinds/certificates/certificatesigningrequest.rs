//! CertificateSigningRequest (`certificates.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;
use crate::server::request::UserInfo;

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
    fn prepare_update(&self, new: &mut Object, old: &Object) {
        // What is asked for is fixed; approval and status have their own doors.
        keep(new, old, "spec");
    }

    /// Approval changes metadata and `status.conditions`, nothing else.
    fn prepare_subresource(&self, _subresource: &str, new: &mut Object, old: &Object, now: &str) {
        let conditions = |csr: &Object| csr.at(&["status", "conditions"]).and_then(Value::as_array).cloned();
        let (given, before) = (conditions(new), conditions(old).unwrap_or_default());
        keep(new, old, "spec");
        keep(new, old, "status");
        match given {
            Some(given) => new.set_at(&["status", "conditions"], timed(given, &before, now).into()),
            None => drop(new.remove_at(&["status", "conditions"])),
        }
    }

    fn validate(&self, csr: &Object, errors: &mut Errors) {
        check(csr, errors, |csr| validate_spec(&csr.get("spec")));
    }

    /// Whose request it is: signers trust these fields, so clients cannot choose them.
    fn record_creator(&self, csr: &mut Object, user: &UserInfo) {
        let Some(spec) = child_or_new(csr, "spec") else { return };
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove_at(&[field]);
        }
        default_zero(spec, "username", user.name.as_str());
        if !user.uid.is_empty() {
            default_zero(spec, "uid", user.uid.as_str());
        }
        if !user.groups.is_empty() {
            default_zero(spec, "groups", user.groups.clone());
        }
        if !user.extra.is_empty() {
            default_zero(spec, "extra", serde_json::json!(user.extra));
        }
    }

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

/// The conditions with their times: a transition is one of the status.
fn timed(mut conditions: Vec<Value>, before: &[Value], now: &str) -> Vec<Value> {
    for condition in &mut conditions {
        let same = before.iter().find(|b| b.get("type") == condition.get("type"));
        let unchanged = same.filter(|b| b.get("status") == condition.get("status"));
        let transition = unchanged.and_then(|b| b.get("lastTransitionTime")).cloned();
        for (field, default) in [("lastUpdateTime", None), ("lastTransitionTime", transition)] {
            if condition.get(field).is_none_or(Value::is_null) {
                condition[field] = default.unwrap_or_else(|| now.into());
            }
        }
    }
    conditions
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

const MIN_SECONDS: i64 = 600;
const PEM_TYPE: &str = "CERTIFICATE REQUEST";
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn validate_spec(spec: &View<'_>) {
    use base64::Engine;
    let request = spec.get("request");
    let pem = base64::engine::general_purpose::STANDARD.decode(request.str()).unwrap_or_default();
    match x509_parser::pem::parse_x509_pem(&pem) {
        Ok((_, pem)) if pem.label == PEM_TYPE => {
            use x509_parser::prelude::FromDer;
            let parsed = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents);
            if let Err(error) = parsed {
                request.invalid_value("<PEM>", error);
            }
        }
        _ => request.invalid_value("<PEM>", format!("PEM block type must be {PEM_TYPE}")),
    }
    let usages = spec.get("usages");
    if usages.is_empty() {
        usages.required("");
    }
    let mut seen = std::collections::BTreeSet::new();
    for usage in usages.items() {
        usage.one_of(USAGES);
        if !seen.insert(usage.str()) {
            usage.duplicate();
        }
    }
    signer_name(&spec.get("signerName"));
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|s| s < MIN_SECONDS) {
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// `example.com/name`: a domain and what it signs.
pub fn signer_name(signer: &View<'_>) {
    if !signer.require() {
        return;
    }
    match signer.str().split_once('/') {
        Some((domain, path)) if !path.contains('/') && !path.is_empty() => {
            if let Err(why) = names::dns_subdomain(domain) {
                signer.invalid_value(domain, why);
            } else if !domain.contains('.') {
                signer.invalid_value(domain, "should be a domain with at least two segments separated by dots");
            }
            if let Err(why) = names::dns_subdomain(path) {
                signer.invalid_value(path, why);
            }
        }
        _ => signer.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"),
    }
}
