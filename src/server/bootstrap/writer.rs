//! Reads and writes of JSON trees through the API, for bootstrap.

use crate::object::{Object, ObjectExt};
use anyhow::{Context, Result};
use serde_json::Value;

/// How often a write is tried again after a conflict with somebody else's.
const ATTEMPTS: usize = 5;

pub struct Writer {
    client: kube::Client,
}

impl Writer {
    pub fn new(client: kube::Client) -> Self {
        Writer { client }
    }

    /// Create an object in a collection unless it is there.
    pub async fn ensure(&self, collection: &str, object: Object) -> Result<()> {
        if self.get(collection, object.name()).await?.is_none() {
            self.create(collection, &object).await?;
        }
        Ok(())
    }

    /// Create an object, or bring these top-level fields of the existing one to what `wanted` says; other fields stay.
    pub async fn ensure_fields(&self, collection: &str, wanted: Object, fields: &[&str]) -> Result<()> {
        self.update_with(collection, &wanted, |found| {
            let mut changed = false;
            for field in fields {
                if found.get(*field) != wanted.get(*field) {
                    found[*field] = wanted.get(*field).cloned().unwrap_or_default();
                    changed = true;
                }
            }
            changed
        })
        .await
    }

    /// Create an object, or change the existing one: `change` says whether it did. Conflicts are read and tried again.
    pub async fn update_with(
        &self,
        collection: &str,
        wanted: &Object,
        change: impl Fn(&mut Object) -> bool,
    ) -> Result<()> {
        let name = wanted.name();
        let mut attempt = 1;
        loop {
            let outcome = match self.get(collection, name).await? {
                None => self.create(collection, wanted).await,
                Some(mut found) => {
                    if !change(&mut found) {
                        return Ok(());
                    }
                    self.send("PUT", &path(collection, name), Some(&found)).await.map(drop).map_err(Into::into)
                }
            };
            match outcome {
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => attempt += 1,
                outcome => return outcome.with_context(|| format!("writing {collection}/{name}")),
            }
        }
    }

    pub async fn get(&self, collection: &str, name: &str) -> Result<Option<Object>> {
        match self.send("GET", &path(collection, name), None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if has_reason(&error, "NotFound") => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {collection}/{name}")),
        }
    }

    /// The items of a collection.
    pub async fn list(&self, collection: &str) -> Result<Vec<Object>> {
        let mut list = self.send("GET", collection, None).await.with_context(|| format!("listing {collection}"))?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Create; an object that somebody else made first is fine.
    pub async fn create(&self, collection: &str, object: &Object) -> Result<()> {
        match self.send("POST", collection, Some(object)).await {
            Err(error) if !has_reason(&error, "AlreadyExists") => {
                Err(error).with_context(|| format!("creating {collection}/{}", object.name()))
            }
            _ => Ok(()),
        }
    }

    pub async fn replace(&self, collection: &str, object: &Object) -> Result<()> {
        let path = path(collection, object.name());
        self.send("PUT", &path, Some(object)).await.map(drop).with_context(|| format!("writing {path}"))
    }

    /// Write the status of an object.
    pub async fn replace_status(&self, collection: &str, object: &Object) -> Result<()> {
        let path = format!("{}/status", path(collection, object.name()));
        self.send("PUT", &path, Some(object)).await.map(drop).with_context(|| format!("writing {path}"))
    }

    pub async fn delete(&self, collection: &str, name: &str) -> Result<()> {
        let path = path(collection, name);
        self.send("DELETE", &path, None).await.map(drop).with_context(|| format!("deleting {path}"))
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Object>) -> Result<Object, kube::Error> {
        let body = body.map(serde_json::to_vec).transpose().map_err(kube::Error::SerdeError)?.unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(body)
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

fn path(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}

fn has_reason(error: &kube::Error, reason: &str) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == reason)
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<kube::Error>().is_some_and(|e| has_reason(e, "Conflict"))
}
