//! `Accept` and `Content-Type` (upstream's `handlers/negotiation`).

use super::{Accepted, Format, Offer, View};
use crate::status::{Reason, Result, Status};

/// A media range with its parameters, in lower case but for parameter values.
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f32,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (main, sub) = parts.next()?.split_once('/')?;
        let params: Vec<_> = parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
        let quality = params.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        Some(Clause { main: main.trim(), sub: sub.trim(), quality, params })
    }

    fn param(&self, name: &str) -> &'a str {
        self.params.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v)
    }

    fn covers(&self, format: Format) -> bool {
        let (main, sub) = format.media_type().split_once('/').unwrap_or_default();
        let same = |pattern: &str, name: &str| pattern == "*" || pattern.eq_ignore_ascii_case(name);
        same(self.main, main) && same(self.sub, sub)
    }

    /// The view that `as`, `g` and `v` name; None: none that this endpoint gives in this format.
    fn view(&self, format: Format, offer: Offer) -> Option<View> {
        let kind = self.param("as");
        if kind.is_empty() {
            return Some(View::Object);
        }
        let version = match (self.param("g"), self.param("v")) {
            ("meta.k8s.io", "v1") => "v1",
            ("meta.k8s.io", "v1beta1") => "v1beta1",
            _ => return None,
        };
        match kind {
            _ if !offer.views => None,
            "Table" if format != Format::Protobuf => Some(View::Table(version)),
            "PartialObjectMetadata" => Some(View::Metadata(version)),
            "PartialObjectMetadataList" => Some(View::MetadataList(version)),
            _ => None,
        }
    }
}

/// Media ranges of an `Accept` header, best first: by quality, wildcards last, else as written.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    clauses.sort_by(|a, b| {
        let vague = |c: &Clause<'_>| (c.main == "*", c.sub == "*");
        b.quality.total_cmp(&a.quality).then(vague(a).cmp(&vague(b)))
    });
    clauses
}

/// What an `Accept` header asks for, best first; 406 when nothing on offer fits. An absent or empty header means JSON.
pub fn accept(header: Option<&str>, offer: Offer) -> Result<Accepted> {
    let header = header.unwrap_or("").trim();
    if header.is_empty() {
        return Ok(Accepted::default());
    }
    let formats = || Format::ALL.into_iter().filter(|f| offer.protobuf || *f != Format::Protobuf);
    for clause in clauses(header) {
        for format in formats().filter(|f| clause.covers(*f)) {
            if let Some(view) = clause.view(format, offer) {
                return Ok(Accepted { format, view, pretty: matches!(clause.param("pretty"), "1" | "true") });
            }
        }
    }
    let list: Vec<&str> = formats().map(Format::media_type).collect();
    let message = format!("only the following media types are accepted: {}", list.join(", "));
    Err(Status::new(Reason::NotAcceptable, message))
}

/// The format of a request body from `Content-Type` (absent: JSON); 415 when it is none of ours.
pub fn content_type(header: Option<&str>) -> Result<Format> {
    let essence = header.unwrap_or("").split(';').next().unwrap_or("").trim();
    if essence.is_empty() {
        return Ok(Format::Json);
    }
    let found = Format::ALL.into_iter().find(|f| f.media_type().eq_ignore_ascii_case(essence));
    found.ok_or_else(|| {
        let list = Format::ALL.map(Format::media_type).join(", ");
        let text = "the body of the request was in an unknown format - accepted media types include: ";
        Status::new(Reason::UnsupportedMediaType, format!("{text}{list}"))
    })
}

/// Whether an `Accept` header takes plain JSON.
pub fn json_accepted(header: Option<&str>) -> bool {
    let header = header.unwrap_or("").trim();
    header.is_empty() || clauses(header).iter().any(|c| c.covers(Format::Json))
}

/// Whether an `Accept` header prefers aggregated discovery of this version over the legacy form.
pub fn wants_discovery(header: Option<&str>, version: &str) -> bool {
    let is_discovery = |c: &Clause<'_>| {
        c.param("as") == "APIGroupDiscoveryList" && c.param("g") == "apidiscovery.k8s.io" && c.param("v") == version
    };
    let clauses = clauses(header.unwrap_or(""));
    let json = clauses.iter().filter(|c| c.covers(Format::Json));
    json.take_while(|c| !c.param("as").is_empty()).any(is_discovery)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offer = Offer { protobuf: true, views: true };

    #[test]
    fn accept_headers() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let custom = Offer { protobuf: false, views: true };
        let plain = Offer { protobuf: true, views: false };
        for (header, offer, format, view) in [
            ("", ALL, Format::Json, View::Object),
            ("*/*", ALL, Format::Json, View::Object),
            ("application/*", ALL, Format::Json, View::Object),
            ("application/json, */*", ALL, Format::Json, View::Object),
            ("application/vnd.kubernetes.protobuf,application/json", ALL, Format::Protobuf, View::Object),
            ("application/vnd.kubernetes.protobuf,application/json", custom, Format::Json, View::Object),
            ("*/*, application/yaml", ALL, Format::Yaml, View::Object),
            ("application/yaml;q=0.5, application/json;q=0.9", ALL, Format::Json, View::Object),
            (table, ALL, Format::Json, View::Table("v1")),
            (table, plain, Format::Json, View::Object),
            ("application/json;as=Table;g=meta.k8s.io;v=v1beta1", ALL, Format::Json, View::Table("v1beta1")),
            (metadata, ALL, Format::Protobuf, View::MetadataList("v1")),
            ("application/vnd.kubernetes.protobuf;stream=watch", ALL, Format::Protobuf, View::Object),
            ("APPLICATION/JSON", ALL, Format::Json, View::Object),
        ] {
            let got = accept(Some(header), offer).map(|a| (a.format, a.view));
            assert_eq!(got, Ok((format, view)), "{header}");
        }
        for (header, offer) in [
            ("text/html", ALL),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", ALL),
            ("application/json;as=Nothing;v=v1;g=meta.k8s.io", ALL),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", ALL),
            ("application/vnd.kubernetes.protobuf", custom),
        ] {
            assert_eq!(accept(Some(header), offer).map_err(|s| s.code()), Err(406), "{header}");
        }
    }

    #[test]
    fn content_types() {
        for (header, format) in [
            (None, Ok(Format::Json)),
            (Some("application/json; charset=utf-8"), Ok(Format::Json)),
            (Some("application/yaml"), Ok(Format::Yaml)),
            (Some("application/vnd.kubernetes.protobuf"), Ok(Format::Protobuf)),
            (Some("text/plain"), Err(415)),
        ] {
            assert_eq!(content_type(header).map_err(|s| s.code()), format, "{header:?}");
        }
    }

    #[test]
    fn discovery_preference() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert!(wants_discovery(Some(kubectl), "v2"));
        assert!(!wants_discovery(Some(kubectl), "v2beta1"));
        assert!(!wants_discovery(Some("application/json"), "v2"));
        assert!(!wants_discovery(None, "v2"));
    }
}
