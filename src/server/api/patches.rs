//! PATCH: four content types, one change.

use super::body::{self, header};
use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::server::codec::{self, Decoded, Format};
use crate::server::patch::{self, Typed};
use crate::server::registry::{Answer, Call, Change, Part};
use crate::server::schema::{self, check::FieldValidation};
use crate::status::{Reason, Result, Status};
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;

/// How a patch document is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
                        application/strategic-merge-patch+json";

/// A patch document, read as far as it can be without the object.
pub struct Patch {
    kind: Kind,
    bytes: Bytes,
    /// The document as a tree; null for JSON patches.
    tree: Object,
    problems: Vec<String>,
}

impl Patch {
    /// 415 for other content types (and for strategic patches of what has no built-in type), 400 for broken documents.
    pub async fn read(request: Request<Body>, expected: (&str, &str, &str), typed: Option<Typed<'_>>) -> Result<Self> {
        let media = header(request.headers(), CONTENT_TYPE.as_str()).unwrap_or("");
        let kind = match media.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" if typed.is_some() => Kind::Strategic,
            "application/apply-patch+yaml" => Kind::Apply,
            _ => {
                let why = format!(
                    "the body of the request was in an unknown format - accepted media types include: {ACCEPTED}"
                );
                return Err(Status::new(Reason::UnsupportedMediaType, why));
            }
        };
        let bytes = body::read(request.into_body()).await?;
        let (tree, problems) = match kind {
            Kind::Json => (Object::Null, Vec::new()),
            Kind::Apply => {
                let Decoded { object, problems } = codec::decode_body(Format::Yaml, &bytes, ("", "", ""))?;
                if object.str_at(&["apiVersion"]).is_empty() || object.str_at(&["kind"]).is_empty() {
                    return Err(Status::bad_request("apiVersion and kind must be set in an apply patch"));
                }
                body::check_type(&object, expected)?;
                (object, problems)
            }
            Kind::Merge | Kind::Strategic => {
                let tree: Object = serde_json::from_slice(&bytes)
                    .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
                if !tree.is_object() {
                    return Err(Status::bad_request("error decoding patch: the patch is not an object"));
                }
                (tree, Vec::new())
            }
        };
        Ok(Patch { kind, bytes, tree, problems })
    }

    pub fn is_apply(&self) -> bool {
        self.kind == Kind::Apply
    }

    /// The configuration of an apply.
    pub fn config(&self) -> &Object {
        &self.tree
    }

    /// The patched object, for all but apply. Warnings go into `warnings`.
    pub fn patched(
        &self,
        current: &Object,
        typed: Option<Typed<'_>>,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Object> {
        let mut new = match (self.kind, typed) {
            (Kind::Json, _) => patch::json::patch(current, &self.bytes)?,
            (Kind::Strategic, Some(typed)) => patch::strategic::patch(current, &self.tree, typed)?,
            (Kind::Apply, _) => {
                let why = "server-side apply is not supported on this subresource";
                return Err(Status::new(Reason::UnsupportedMediaType, why));
            }
            _ => patch::merge::patch(current, &self.tree),
        };
        if let Some(typed) = typed {
            *warnings = schema::check::admit(&mut new, typed, Vec::new(), validation)?;
        }
        Ok(new)
    }
}

impl Call {
    /// PATCH of the whole object, or of a part that looks like it.
    pub async fn patch(&mut self, part: Part, request: Request<Body>) -> Result<Answer> {
        let kind = self.kind();
        let patch = Patch::read(request, (kind.group, kind.version, kind.kind), self.served.typed).await?;
        if patch.is_apply() {
            return self.apply(part, patch).await;
        }
        self.refuse_force()?;
        let (typed, validation) = (self.served.typed, self.write.validation);
        let mut warnings = Vec::new();
        let name = self.info.name.clone();
        let not_found = self.not_found(&name);
        let mut make = |current: Option<&Object>| {
            let current = current.ok_or_else(|| not_found.clone())?;
            Ok((patch.patched(current, typed, validation, &mut warnings)?, false))
        };
        let answer = self.change(&name, Change { part, make: &mut make, create: false }).await?;
        self.warnings.extend(warnings);
        Ok(answer)
    }

    /// `force` belongs to apply.
    pub fn refuse_force(&self) -> Result<()> {
        if !self.write.force {
            return Ok(());
        }
        let mut errors = Errors::new();
        errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
        Err(Status::invalid("meta.k8s.io", "PatchOptions", "", errors))
    }

    /// Server-side apply (KEP-555).
    async fn apply(&mut self, part: Part, patch: Patch) -> Result<Answer> {
        let Some(typed) = self.served.typed else {
            let why = "server-side apply needs a schema, and this resource has none";
            return Err(Status::new(Reason::UnsupportedMediaType, why));
        };
        if self.write.field_manager.is_empty() {
            let mut errors = Errors::new();
            errors.required(&Path::new("fieldManager"), "is required for apply patch");
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", errors));
        }
        let name = self.info.name.clone();
        let mut config = patch.tree;
        let unknown = schema::check::check(&mut config, typed).map_err(Status::bad_request)?;
        let problems = patch.problems.into_iter().chain(unknown).collect();
        let warnings = schema::check::enforce(problems, self.write.validation).map_err(Status::bad_request)?;
        self.warnings.extend(warnings);
        if config.name().is_empty() {
            config.metadata_mut().insert("name".to_owned(), name.clone().into());
        }
        self.settle_namespace(&mut config)?;
        let (api_version, now, force) = (self.kind().api_version(), self.now(), self.write.force);
        let owner = self.clone();
        let manager = owner.manager(&api_version, part.name(), &now);
        let mut make = |live: Option<&Object>| Ok((patch::apply::apply(live, &config, manager, force, typed)?, true));
        self.change(&name, Change { part, make: &mut make, create: part == Part::Main }).await
    }
}
