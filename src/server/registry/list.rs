//! Lists: from stored bytes where nothing else is asked for, else from trees.

use super::paging::{PAGE_OBJECTS, Pager};
use super::selection::Candidate;
use super::{Call, Selection};
use crate::object::Object;
use crate::server::kinds::Kind;
use crate::server::raw;
use crate::server::request::options::ListOptions;
use crate::status::Result;
use crate::store::KeyValue;
use bytes::Bytes;
use futures::Stream;
use serde_json::{Map, Value, json};

/// A started list.
pub struct Listed {
    kind: &'static Kind,
    pager: Pager,
    selection: Selection,
    limit: usize,
    /// The first page has been read: errors from here on are unlikely, and too late for a Status.
    first: Vec<KeyValue>,
}

impl Call {
    /// Start a list: checks the options and reads the first page.
    pub async fn list(&self, options: &ListOptions) -> Result<Listed> {
        let kind = self.kind();
        let selection = Selection::new(kind, options)?;
        let store = self.api.registry().store().clone();
        let mut pager = Pager::new(store, kind, self.namespace(), selection.name(), options)?;
        let size = if options.limit > 0 { options.limit.min(PAGE_OBJECTS) } else { PAGE_OBJECTS };
        let first = pager.page(size).await?;
        Ok(Listed { kind, pager, selection, limit: options.limit, first })
    }
}

impl Listed {
    /// Nothing has to be looked at: stored bytes can be sent as they are.
    pub fn is_plain(&self) -> bool {
        self.selection.is_everything() && self.kind.conversion.is_none()
    }

    /// All that is asked for, at most `limit`, and the list's metadata.
    pub async fn collect(mut self) -> Result<(Vec<KeyValue>, Value)> {
        let mut found: Vec<KeyValue> = Vec::new();
        let mut page = std::mem::take(&mut self.first);
        let mut token = None;
        'pages: while !page.is_empty() {
            let size = page.len();
            for (i, kv) in page.into_iter().enumerate() {
                if self.limit > 0 && found.len() == self.limit {
                    let left = self.pager.left() + size - i;
                    token = found.last().map(|last: &KeyValue| (self.pager.token_behind(&last.key), left));
                    break 'pages;
                }
                if self.selection.matches(&Candidate::new(&kv)) {
                    found.push(kv);
                }
            }
            if self.limit > 0 && found.len() == self.limit && self.pager.left() > 0 {
                token = found.last().map(|last| (self.pager.token_behind(&last.key), self.pager.left()));
                break;
            }
            page = self.pager.page(PAGE_OBJECTS).await?;
        }
        let mut meta = Map::new();
        if let Some((token, left)) = token {
            meta.insert("continue".to_owned(), token.into());
            // With selectors nobody knows how many of the rest match.
            if self.selection.is_everything() {
                meta.insert("remainingItemCount".to_owned(), left.into());
            }
        }
        meta.insert("resourceVersion".to_owned(), self.pager.snapshot().to_string().into());
        Ok((found, meta.into()))
    }

    /// The parsed objects and the list's metadata.
    pub async fn objects(self) -> Result<(Vec<Object>, Value)> {
        let kind = self.kind;
        let (found, meta) = self.collect().await?;
        let objects = found.iter().map(|kv| Candidate::new(kv).into_object(kind)).collect::<Result<_>>()?;
        Ok((objects, meta))
    }

    /// A plain list as JSON, page by page, without parsing. An error on the way ends the stream: the client sees a
    /// broken answer, not a short one.
    pub async fn stream(self) -> Result<impl Stream<Item = Result<Bytes>> + Send> {
        debug_assert!(self.is_plain());
        let kind = self.kind;
        let paged = self.limit > 0;
        let (first, meta, rest) = if paged {
            let (found, meta) = self.collect().await?;
            (found, meta, None)
        } else {
            let meta = json!({"resourceVersion": self.pager.snapshot().to_string()});
            (self.first, meta, Some(self.pager))
        };
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
            kind.list_kind(),
            kind.api_version()
        );
        let state = Pages { rest, next: Some(first), head: Some(head) };
        Ok(futures::stream::unfold(state, |mut state| async move {
            let piece = state.piece().await?;
            Some((piece, state))
        }))
    }
}

/// The pieces of a streamed list.
struct Pages {
    /// Where more comes from, if there may be more.
    rest: Option<Pager>,
    next: Option<Vec<KeyValue>>,
    head: Option<String>,
}

impl Pages {
    async fn piece(&mut self) -> Option<Result<Bytes>> {
        let page = self.next.take()?;
        let head = self.head.take();
        let mut comma = head.is_none();
        let mut out = Vec::with_capacity(64 + page.iter().map(|kv| raw::spliced_len(&kv.value)).sum::<usize>());
        out.extend_from_slice(head.unwrap_or_default().as_bytes());
        for kv in &page {
            if comma {
                out.push(b',');
            }
            comma = true;
            raw::splice_item(&mut out, &kv.value, kv.mod_revision);
        }
        match self.rest.as_mut().filter(|pager| pager.left() > 0) {
            Some(pager) => match pager.page(PAGE_OBJECTS).await {
                Ok(page) => self.next = Some(page),
                Err(status) => return Some(Err(status)),
            },
            None => out.extend_from_slice(b"]}"),
        }
        Some(Ok(out.into()))
    }
}
