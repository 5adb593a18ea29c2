//! Lists, written page by page: however long, one page of objects is in memory. From stored bytes where nothing else
//! is asked for, else from trees.

use super::paging::{PAGE_OBJECTS, Pager};
use super::selection::Candidate;
use super::{Call, Selection, Served};
use crate::object::Object;
use crate::server::codec::View;
use crate::server::codec::protobuf;
use crate::server::raw;
use crate::server::request::options::ListOptions;
use crate::server::table::{self, Include};
use crate::status::{Result, Status};
use crate::store::KeyValue;
use bytes::Bytes;
use futures::Stream;
use serde_json::{Map, Value};

/// A started list.
pub struct Listed {
    served: Served,
    pager: Pager,
    selection: Selection,
    /// 0: all.
    limit: usize,
    /// Objects handed out.
    found: usize,
    /// A page that has been read and not yet looked at.
    page: Option<Vec<KeyValue>>,
    /// Where to go on, and how many keys are left there: the limit was reached.
    rest: Option<(String, usize)>,
}

/// How items are written as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub view: View,
    pub include: Include,
    /// Unix seconds, for ages.
    pub now: i64,
}

impl Call {
    /// Start a list: checks the options and reads the first page.
    pub async fn list(&self, options: &ListOptions) -> Result<Listed> {
        let kind = self.kind();
        let selection = Selection::new(kind, options)?;
        let store = self.api.registry().store().clone();
        let mut pager = Pager::new(store, kind, self.namespace(), selection.name(), options)?;
        let size = if options.limit > 0 { options.limit.min(PAGE_OBJECTS) } else { PAGE_OBJECTS };
        let page = Some(pager.page(size).await?);
        Ok(Listed { served: self.served, pager, selection, limit: options.limit, found: 0, page, rest: None })
    }
}

impl Listed {
    /// The next selected objects; None at the end. May be empty in between.
    async fn next(&mut self) -> Result<Option<Vec<KeyValue>>> {
        if self.rest.is_some() {
            return Ok(None);
        }
        let page = match self.page.take() {
            Some(page) => page,
            None => self.pager.page(PAGE_OBJECTS).await?,
        };
        if page.is_empty() {
            return Ok(None);
        }
        let size = page.len();
        let mut selected = Vec::with_capacity(size);
        let mut last = None;
        for (i, kv) in page.into_iter().enumerate() {
            if self.limit > 0 && self.found == self.limit {
                let left = self.pager.left() + size - i;
                self.rest = last.map(|key: Bytes| (self.pager.token_behind(&key), left));
                return Ok(Some(selected));
            }
            last = Some(kv.key.clone());
            if self.selection.matches(&Candidate::new(&kv)) {
                self.found += 1;
                selected.push(kv);
            }
        }
        if self.limit > 0 && self.found == self.limit && self.pager.left() > 0 {
            self.rest = last.map(|key| (self.pager.token_behind(&key), self.pager.left()));
        }
        Ok(Some(selected))
    }

    /// The list's metadata; complete after the last page.
    fn meta(&self) -> Value {
        let mut meta = Map::new();
        if let Some((token, left)) = &self.rest {
            meta.insert("continue".to_owned(), token.clone().into());
            // With selectors nobody knows how many of the rest match.
            if self.selection.is_everything() {
                meta.insert("remainingItemCount".to_owned(), (*left).into());
            }
        }
        meta.insert("resourceVersion".to_owned(), self.pager.snapshot().to_string().into());
        meta.into()
    }

    /// The stored states of everything that is asked for.
    pub async fn collect(mut self) -> Result<Vec<KeyValue>> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// Everything as one tree.
    pub async fn object(mut self, shape: Shape) -> Result<Object> {
        let kind = self.served.kind;
        let mut items = Vec::new();
        while let Some(page) = self.next().await? {
            for kv in &page {
                items.push(table::item(
                    kind,
                    Candidate::new(kv).into_object(kind)?,
                    shape.view,
                    shape.include,
                    shape.now,
                ));
            }
        }
        Ok(table::list(kind, self.meta(), items, shape.view))
    }

    /// Everything as one protobuf body.
    pub async fn protobuf(mut self) -> Result<Bytes> {
        let kind = self.served.kind;
        let typed = self.served.typed.ok_or_else(|| Status::internal("a list without a type"))?;
        let mut list = protobuf::List::new(&kind.api_version(), &kind.list_kind(), typed)?;
        while let Some(page) = self.next().await? {
            for kv in &page {
                list.push(&Candidate::new(kv).into_object(kind)?);
            }
        }
        Ok(list.finish(&self.meta()).into())
    }

    /// Everything as JSON, a piece for each page. The metadata comes last: only then is it known whether there is more.
    /// An error on the way ends the stream: the client sees a broken answer, not a short one.
    pub fn json(self, shape: Shape) -> impl Stream<Item = Result<Bytes>> + Send {
        let state = Some(Writing { list: self, shape, started: false, items: 0 });
        futures::stream::unfold(state, |state| async move {
            let mut writing = state?;
            match writing.piece().await {
                Ok((piece, true)) => Some((Ok(piece), Some(writing))),
                Ok((piece, false)) => Some((Ok(piece), None)),
                Err(status) => Some((Err(status), None)),
            }
        })
    }
}

/// A JSON list under way.
struct Writing {
    list: Listed,
    shape: Shape,
    started: bool,
    items: usize,
}

impl Writing {
    /// The next piece, and whether there is another one.
    async fn piece(&mut self) -> Result<(Bytes, bool)> {
        let kind = self.list.served.kind;
        let page = self.list.next().await?;
        let bytes: usize = page.iter().flatten().map(|kv| raw::spliced_len(&kv.value)).sum();
        let mut out = Vec::with_capacity(bytes + 512);
        if !self.started {
            self.started = true;
            out.extend_from_slice(table::list_head(kind, self.shape.view).as_bytes());
        }
        for kv in page.iter().flatten() {
            if self.items > 0 {
                out.push(b',');
            }
            self.items += 1;
            self.item(kv, &mut out)?;
        }
        let more =
            page.is_some() && self.list.rest.is_none() && (self.list.page.is_some() || self.list.pager.left() > 0);
        if !more {
            out.extend_from_slice(b"],\"metadata\":");
            serde_json::to_writer(&mut out, &self.list.meta()).map_err(Status::internal)?;
            out.extend_from_slice(b"}\n");
        }
        Ok((out.into(), more))
    }

    fn item(&self, kv: &KeyValue, out: &mut Vec<u8>) -> Result<()> {
        let kind = self.list.served.kind;
        let Shape { view, include, now } = self.shape;
        if view == View::Object && kind.conversion.is_none() {
            raw::splice_item(out, &kv.value, kv.mod_revision);
            return Ok(());
        }
        let object = Candidate::new(kv).into_object(kind)?;
        let item = table::item(kind, object, view, include, now);
        serde_json::to_writer(out, &item).map_err(Status::internal)
    }
}
