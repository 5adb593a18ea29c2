//! Request bodies: read within bounds, decoded, checked.

use crate::object::{Object, ObjectExt};
use crate::server::codec::{self, Decoded};
use crate::server::patch::Typed;
use crate::server::schema::{self, check::FieldValidation};
use crate::status::{Result, Status};
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Largest request body (upstream `MaxRequestBodyBytes`).
const MAX_BODY_BYTES: usize = 3 << 20;

/// The whole body; 413 where it is too large.
pub async fn read(body: Body) -> Result<Bytes> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(MAX_BODY_BYTES)),
        Err(error) => Err(Status::bad_request(format!("cannot read the request body: {error}"))),
    }
}

/// A decoded body of the expected (group, version, kind), not yet checked against the schema.
pub fn decode(headers: &HeaderMap, bytes: &[u8], expected: (&str, &str, &str)) -> Result<Decoded> {
    let format = codec::content_type(header(headers, CONTENT_TYPE.as_str()))?;
    let decoded = codec::decode_body(format, bytes, expected)?;
    check_type(&decoded.object, expected)?;
    Ok(decoded)
}

/// The body must be of the kind that the path speaks.
pub fn check_type(object: &Object, expected: (&str, &str, &str)) -> Result<()> {
    let (group, version, kind) = expected;
    let api_version = crate::object::api_version(group, version);
    let (given_version, given_kind) = (object.str_at(&["apiVersion"]), object.str_at(&["kind"]));
    if given_kind != kind && !given_kind.is_empty() {
        return Err(Status::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {kind}: no kind \"{given_kind}\" is registered for version \"{api_version}\""
        )));
    }
    if given_version != api_version && !given_version.is_empty() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    Ok(())
}

/// Read, decode and check a body. The texts are warnings.
pub async fn read_object(
    headers: &HeaderMap,
    body: Body,
    expected: (&str, &str, &str),
    typed: Option<Typed<'_>>,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>)> {
    let bytes = read(body).await?;
    let Decoded { mut object, problems } = decode(headers, &bytes, expected)?;
    let warnings = match typed {
        Some(typed) => schema::check::admit(&mut object, typed, problems, validation)?,
        None => schema::check::enforce(problems, validation).map_err(Status::bad_request)?,
    };
    Ok((object, warnings))
}

/// A header as text; None where it is absent or not text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}
