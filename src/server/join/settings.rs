//! The cluster's settings, told to nodes of a version that fits (upstream's version skew policy: a kubelet is not newer
//! than the API server, and at most three minor versions older).

use crate::join::Settings;
use crate::server::api::json_response;
use crate::server::request::Query;
use crate::status::{Reason, Result, Status};
use axum::body::Body;
use http::{Request, Response};

/// Minor versions that a node may be behind.
const MAX_BEHIND: u32 = 3;

pub fn answer(settings: &Settings, request: &Request<Body>) -> Result<Response<Body>> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Some(asker) = query.find("version")
        && let Some(why) = skew(asker, &settings.version)
    {
        return Err(Status::new(Reason::NotAcceptable, why));
    }
    json_response(settings)
}

/// Why a node of this version cannot be part of the cluster, and what to do.
fn skew(node: &str, server: &str) -> Option<String> {
    let (Some((major, minor)), Some(ours)) = (version(node), version(server)) else {
        return Some(format!("{node:?} is no version of Kubernetes"));
    };
    if (major, minor) > ours {
        return Some(format!("this host has {node}, newer than the server's {server}: upgrade the server first"));
    }
    if major != ours.0 || minor + MAX_BEHIND < ours.1 {
        return Some(format!(
            "this host has {node}, too old for the server's {server} (at most {MAX_BEHIND} minor versions behind): \
             install the server's version of kedge here"
        ));
    }
    None
}

/// Major and minor of `v1.37.1+kedge0.1.0`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix('v')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skew_policy() {
        let cases = [
            ("v1.37.1+kedge0.1.0", None),
            ("v1.37.9", None),
            ("v1.34.0", None),
            ("v1.33.9", Some("too old")),
            ("v1.38.0", Some("upgrade the server first")),
            ("v2.0.0", Some("upgrade the server first")),
            ("v0.37.0", Some("too old")),
            ("1.37", Some("no version")),
            ("", Some("no version")),
        ];
        for (node, why) in cases {
            let got = skew(node, "v1.37.1+kedge0.1.0");
            assert_eq!(got.is_some(), why.is_some(), "{node}: {got:?}");
            assert!(why.is_none_or(|why| got.as_ref().is_some_and(|g| g.contains(why))), "{node}: {got:?}");
        }
    }
}
