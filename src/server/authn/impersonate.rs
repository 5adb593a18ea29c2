//! Impersonation: `Impersonate-User`, `-Group`, `-Uid`, `-Extra-<key>`. Each part needs the verb `impersonate` on it.

use super::{service_account_groups, split_service_account, with_authenticated_group};
use crate::server::authz::{Authorizer, Decision, forbidden};
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::{Result, Status};
use crate::wire::query::unescape;
use http::HeaderMap;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the request acts as: `user` itself without impersonation headers, else who they name, if `user` may.
pub async fn impersonate(user: UserInfo, headers: &HeaderMap, authorizer: &dyn Authorizer) -> Result<UserInfo> {
    let Some(wanted) = wanted(headers)? else { return Ok(user) };
    for info in checks(&wanted) {
        match authorizer.authorize(&user, &info).await? {
            Decision::Allow { .. } => {}
            Decision::Deny { reason } | Decision::NoOpinion { reason } => return Err(forbidden(&user, &info, &reason)),
        }
    }
    Ok(complete(wanted))
}

/// The user as the headers spell it.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>> {
    let one = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let groups: Vec<String> =
        headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let Ok(value) = value.to_str() else { continue };
        // Percent-encoded (RFC 3986 §2.1), as header names cannot hold everything.
        extra.entry(unescape(key).to_lowercase()).or_default().push(value.to_owned());
    }
    let user = UserInfo { name: one(USER), uid: one(UID), groups, extra };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    let stray = !user.groups.is_empty() || !user.uid.is_empty() || !user.extra.is_empty();
    if stray { Err(Status::internal("requested impersonation without impersonating a user")) } else { Ok(None) }
}

/// What the caller must be allowed to do.
fn checks(wanted: &UserInfo) -> Vec<RequestInfo> {
    let ask = |group: &str, resource: &str, name: &str| RequestInfo {
        is_resource: true,
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        name: name.into(),
        ..Default::default()
    };
    let mut checks = vec![match split_service_account(&wanted.name) {
        Some((namespace, name)) => RequestInfo { namespace: namespace.into(), ..ask("", "serviceaccounts", name) },
        None => ask("", "users", &wanted.name),
    }];
    checks.extend(wanted.groups.iter().map(|g| ask("", "groups", g)));
    if !wanted.uid.is_empty() {
        checks.push(ask("authentication.k8s.io", "uids", &wanted.uid));
    }
    for (key, values) in &wanted.extra {
        let extra = |value: &String| RequestInfo {
            subresource: key.clone(),
            ..ask("authentication.k8s.io", "userextras", value)
        };
        checks.extend(values.iter().map(extra));
    }
    checks
}

/// Add the groups that the user would have had by authenticating.
fn complete(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = split_service_account(&user.name)
    {
        user.groups = service_account_groups(namespace);
    }
    if user.name == UserInfo::ANONYMOUS && !user.is_in(UserInfo::UNAUTHENTICATED) {
        user.groups.push(UserInfo::UNAUTHENTICATED.to_owned());
    }
    with_authenticated_group(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use parking_lot::Mutex;

    /// Allows everything but groups named `no`, and records what was asked.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    #[async_trait]
    impl Authorizer for Recorder {
        async fn authorize(&self, _: &UserInfo, i: &RequestInfo) -> Result<Decision> {
            self.0.lock().push(format!("{}/{}/{}/{}:{}", i.group, i.namespace, i.resource, i.subresource, i.name));
            let reason = String::new();
            Ok(if i.name == "no" { Decision::NoOpinion { reason } } else { Decision::Allow { reason } })
        }
    }

    #[tokio::test]
    async fn impersonation() {
        type Case<'a> = (&'a [(&'static str, &'a str)], Result<(&'a str, &'a [&'a str]), &'a str>, &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&[], Ok(("admin", &[])), &[]),
            (&[(USER, "jane")], Ok(("jane", &["system:authenticated"])), &["//users/:jane"]),
            (
                &[(USER, "jane"), (GROUP, "dev"), (GROUP, "ops")],
                Ok(("jane", &["dev", "ops", "system:authenticated"])),
                &["//users/:jane", "//groups/:dev", "//groups/:ops"],
            ),
            (
                &[(USER, "system:serviceaccount:ns:sa")],
                Ok((
                    "system:serviceaccount:ns:sa",
                    &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
                )),
                &["/ns/serviceaccounts/:sa"],
            ),
            (
                &[(USER, "system:anonymous")],
                Ok(("system:anonymous", &["system:unauthenticated"])),
                &["//users/:system:anonymous"],
            ),
            (
                &[(USER, "jane"), (UID, "7"), ("impersonate-extra-example.org%2fscope", "x")],
                Ok(("jane", &["system:authenticated"])),
                &[
                    "//users/:jane",
                    "authentication.k8s.io//uids/:7",
                    "authentication.k8s.io//userextras/example.org/scope:x",
                ],
            ),
            (
                &[(USER, "jane"), (GROUP, "no")],
                Err(
                    "groups \"no\" is forbidden: User \"admin\" cannot impersonate resource \"groups\" in API group \"\" at the cluster scope",
                ),
                &["//users/:jane", "//groups/:no"],
            ),
            (
                &[(GROUP, "dev")],
                Err("Internal error occurred: requested impersonation without impersonating a user"),
                &[],
            ),
        ];
        for (pairs, want, asked) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *pairs {
                headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            let recorder = Recorder::default();
            let admin = UserInfo { name: "admin".into(), ..Default::default() };
            let got = impersonate(admin, &headers, &recorder).await;
            assert_eq!(*recorder.0.lock(), *asked, "{pairs:?}");
            match (got, want) {
                (Ok(user), Ok((name, groups))) => {
                    assert_eq!((user.name.as_str(), user.groups.len()), (*name, groups.len()), "{pairs:?}");
                    assert!(groups.iter().all(|g| user.is_in(g)), "{pairs:?} {user:?}");
                }
                (Err(status), Err(message)) => assert_eq!(status.message, *message),
                (got, want) => panic!("{pairs:?}: {got:?}, wanted {want:?}"),
            }
        }
    }
}
