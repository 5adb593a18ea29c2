//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may say what about a signer's requests.

use super::{Operation, Plugin, Reader, Request, forbidden, items};
use crate::object::{Object, ObjectExt};
use crate::server::authz::Decision;
use crate::server::request::RequestInfo;
use crate::status::Result;
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::prelude::FromDer;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

pub struct CertificateApproval;
pub struct CertificateSigning;
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, request: &Request<'_>, _reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Update || !request.is_sub(GROUP, RESOURCE, "approval") {
            return Ok(());
        }
        let Some(old) = request.old else { return Ok(()) };
        require(request, "approve", old.str_at(&["spec", "signerName"])).await
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, request: &Request<'_>, _reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Update || !request.is_sub(GROUP, RESOURCE, "status") {
            return Ok(());
        }
        let (Some(old), Some(new)) = (request.old, request.object.as_deref()) else { return Ok(()) };
        let failed = |csr: &Object| -> Vec<Value> {
            items(csr, &["status", "conditions"]).filter(|c| c.str_at(&["type"]) == "Failed").cloned().collect()
        };
        let same_certificate = old.at(&["status", "certificate"]) == new.at(&["status", "certificate"]);
        if same_certificate && failed(old) == failed(new) {
            return Ok(());
        }
        require(request, "sign", old.str_at(&["spec", "signerName"])).await
    }
}

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn validate(&self, request: &Request<'_>, _reader: &dyn Reader) -> Result<()> {
        const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        if request.operation != Operation::Create || !request.is_main(GROUP, RESOURCE) {
            return Ok(());
        }
        let Some(csr) = request.object.as_deref() else { return Ok(()) };
        if csr.str_at(&["spec", "signerName"]) != SIGNER {
            return Ok(());
        }
        let Some(subject) = Subject::of_request(csr) else {
            return Err(forbidden(request, "unable to parse csr"));
        };
        if subject.organizations.iter().any(|o| o == "system:masters") {
            let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
            return Err(forbidden(request, why));
        }
        Ok(())
    }
}

/// `approve` or `sign` on `signers/<name>`, or on `signers/<domain>/*`.
async fn require(request: &Request<'_>, verb: &str, signer: &str) -> Result<()> {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let info = RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..Default::default()
        };
        if matches!(request.authorizer.authorize(request.user, &info).await?, Decision::Allow { .. }) {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(forbidden(request, why))
}

/// Whom a certificate signing request is about.
pub(super) struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl Subject {
    /// Of a CertificateSigningRequest object.
    pub(super) fn of_request(csr: &Object) -> Option<Self> {
        let pem = BASE64_STANDARD.decode(csr.str_at(&["spec", "request"])).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).ok()?;
        let subject = &csr.certification_request_info.subject;
        let common_name = subject.iter_common_name().next().and_then(|c| c.as_str().ok()).unwrap_or("").to_owned();
        let organizations = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Some(Subject { common_name, organizations })
    }
}
