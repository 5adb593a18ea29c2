//! Nobody grants rights they do not have: writes of roles need the rules themselves or the verb `escalate`, writes of
//! bindings the role's rules or the verb `bind` (upstream does this in the RBAC kinds' storage).

use super::{Operation, Plugin, Reader, Request, forbidden};
use crate::object::{Object, ObjectExt};
use crate::server::authz::rbac::GROUP;
use crate::server::authz::rule::{Rule, uncovered};
use crate::server::authz::{Decision, Rules};
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Result, Status};
use async_trait::async_trait;

pub struct RbacEscalation;

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RbacEscalation"
    }

    async fn validate(&self, request: &Request<'_>, reader: &dyn Reader) -> Result<()> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if !is_write || request.kind.group != GROUP || request.user.is_in(UserInfo::MASTERS) {
            return Ok(());
        }
        match request.kind.plural {
            "roles" | "clusterroles" => role(request).await,
            "rolebindings" | "clusterrolebindings" => binding(request, reader).await,
            _ => Ok(()),
        }
    }
}

async fn role(request: &Request<'_>) -> Result<()> {
    let Some(new) = request.object.as_deref() else { return Ok(()) };
    let same = |field: &str| request.old.is_some_and(|old| old.get(field) == new.get(field));
    if same("rules") && same("aggregationRule") {
        return Ok(());
    }
    if is_allowed(request, "escalate", request.kind.plural, new.namespace(), new.name()).await? {
        return Ok(());
    }
    let aggregates = |role: &Object| role.get("aggregationRule").is_some_and(|v| !v.is_null());
    let owned = owned_rules(request, new.namespace()).await?;
    if aggregates(new) || request.old.is_some_and(aggregates) {
        let all = || vec!["*".to_owned()];
        let full = [
            Rule { verbs: all(), groups: all(), resources: all(), ..Default::default() },
            Rule { verbs: all(), urls: all(), ..Default::default() },
        ];
        if !uncovered(&owned, &full).is_empty() {
            return Err(forbidden(request, "must have cluster-admin privileges to use an aggregationRule"));
        }
    }
    confirm(request, &owned, &Rule::of_role(new))
}

async fn binding(request: &Request<'_>, reader: &dyn Reader) -> Result<()> {
    let Some(new) = request.object.as_deref() else { return Ok(()) };
    let same = |field: &str| request.old.is_some_and(|old| old.get(field) == new.get(field));
    if same("roleRef") && same("subjects") {
        return Ok(());
    }
    let name = new.str_at(&["roleRef", "name"]);
    let is_role = new.str_at(&["roleRef", "kind"]) == "Role";
    let (resource, role_namespace) = if is_role { ("roles", new.namespace()) } else { ("clusterroles", "") };
    if is_allowed(request, "bind", resource, new.namespace(), name).await? {
        return Ok(());
    }
    let Some(role) = reader.get(GROUP, resource, role_namespace, name).await? else {
        return Err(Status::not_found(GROUP, resource.trim_end_matches('s'), name));
    };
    let owned = owned_rules(request, new.namespace()).await?;
    confirm(request, &owned, &Rule::of_role(&role))
}

async fn is_allowed(request: &Request<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> Result<bool> {
    let info = RequestInfo {
        is_resource: true,
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        namespace: namespace.into(),
        resource: resource.into(),
        name: name.into(),
        ..Default::default()
    };
    Ok(matches!(request.authorizer.authorize(request.user, &info).await?, Decision::Allow { .. }))
}

async fn owned_rules(request: &Request<'_>, namespace: &str) -> Result<Vec<Rule>> {
    let Rules { resource, non_resource, .. } = request.authorizer.rules(request.user, namespace).await?;
    Ok(resource.iter().chain(&non_resource).map(Rule::from_value).collect())
}

fn confirm(request: &Request<'_>, owned: &[Rule], wanted: &[Rule]) -> Result<()> {
    let missing = uncovered(owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups = request.user.groups.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = missing.iter().map(Rule::describe).collect();
    lines.sort();
    let why = format!(
        "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{}",
        request.user.name,
        lines.join("\n")
    );
    Err(forbidden(request, why))
}
