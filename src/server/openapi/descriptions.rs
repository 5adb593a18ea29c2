//! Field descriptions, from the file that build.rs makes out of the `k8s-openapi` dependency.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines};

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zst"));

type Reader = BufReader<zstd::Decoder<'static, BufReader<&'static [u8]>>>;

/// Descriptions of all types, unpacked as a stream: they are in memory one type at a time. The file is sorted by type
/// name, and so must be the questions.
pub struct Descriptions {
    lines: Option<Lines<Reader>>,
    /// The first line of the next type: its name and text.
    next: Option<(String, String)>,
}

/// Descriptions of one type and its fields; empty ones are absent.
#[derive(Default)]
pub struct Described {
    pub text: Option<String>,
    fields: HashMap<String, String>,
}

impl Described {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Descriptions {
    pub fn open() -> Self {
        let decoder = zstd::Decoder::new(COMPRESSED).ok();
        let mut opened = Descriptions { lines: decoder.map(|d| BufReader::new(d).lines()), next: None };
        opened.skip_to_type();
        opened
    }

    /// (letter, name, text) of the next line.
    fn line(&mut self) -> Option<(String, String, String)> {
        let line = self.lines.as_mut()?.next()?.ok()?;
        let mut columns = line.splitn(3, '\t');
        let (letter, name, text) = (columns.next()?, columns.next()?, columns.next()?);
        Some((letter.to_owned(), name.to_owned(), serde_json::from_str(text).unwrap_or_default()))
    }

    fn skip_to_type(&mut self) {
        self.next = None;
        while let Some((letter, name, text)) = self.line() {
            if letter == "T" {
                self.next = Some((name, text));
                return;
            }
        }
    }

    /// Descriptions of a type; names must be asked for in ascending order.
    pub fn of(&mut self, name: &str) -> Described {
        while self.next.as_ref().is_some_and(|(next, _)| next.as_str() < name) {
            self.skip_to_type();
        }
        let Some((_, text)) = self.next.take_if(|(next, _)| next == name) else { return Described::default() };
        let mut found = Described { text: Some(text).filter(|t| !t.is_empty()), ..Default::default() };
        while let Some((letter, name, text)) = self.line() {
            if letter == "T" {
                self.next = Some((name, text));
                break;
            }
            if !text.is_empty() {
                found.fields.insert(name, text);
            }
        }
        found
    }
}
