//! Links in HTML pages rewritten while the page streams through: tags are found as the HTML tokenizer does
//! (WHATWG HTML section 13.2.5, without what no link depends on), everything else passes untouched.

/// Longest tag that is looked at; a longer one passes as it is, so that a page cannot fill memory.
const MAX_TAG_BYTES: usize = 64 << 10;

/// Attributes that hold URLs, by element (upstream's table).
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text up to their end tag.
const RAW: &[&str] = &["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// Gives the new URL, or None to leave it.
pub type Rewrite = Box<dyn Fn(&str) -> Option<String> + Send>;

/// Where in the page we are.
enum State {
    Text,
    /// Inside `<!--` … `-->`.
    Comment,
    /// Inside an element of [`RAW`].
    Raw(&'static str),
}

/// A page on its way.
pub struct Rewriter {
    rewrite: Rewrite,
    state: State,
    /// What cannot be decided yet: the beginning of a tag or of an end mark.
    held: Vec<u8>,
}

/// What can be said about the bytes at hand.
enum Found {
    /// So many bytes pass as they are.
    Pass(usize),
    /// A start tag of so many bytes.
    Tag(usize),
    /// More bytes are needed.
    More,
}

impl Rewriter {
    pub fn new(rewrite: Rewrite) -> Self {
        Rewriter { rewrite, state: State::Text, held: Vec::new() }
    }

    /// The next bytes of the page; what is ready goes to `out`.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(data);
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            match self.look(rest) {
                Found::Pass(n) => {
                    out.extend_from_slice(&rest[..n]);
                    rest = &rest[n..];
                }
                Found::Tag(n) => {
                    self.tag(&rest[..n], out);
                    rest = &rest[n..];
                }
                Found::More if rest.len() > MAX_TAG_BYTES => {
                    out.extend_from_slice(rest);
                    rest = &[];
                }
                Found::More => break,
            }
        }
        self.held = rest.to_vec();
    }

    /// The end of the page.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn look(&mut self, rest: &[u8]) -> Found {
        match self.state {
            State::Text => self.text(rest),
            State::Comment => match find(rest, b"-->") {
                Some(at) => {
                    self.state = State::Text;
                    Found::Pass(at + 3)
                }
                None => all_but(rest, 2),
            },
            State::Raw(element) => self.raw(rest, element),
        }
    }

    fn text(&mut self, rest: &[u8]) -> Found {
        let open = rest.iter().position(|b| *b == b'<').unwrap_or(rest.len());
        if open > 0 {
            return Found::Pass(open);
        }
        if b"<!--".starts_with(&rest[..rest.len().min(4)]) {
            if rest.len() < 4 {
                return Found::More;
            }
            self.state = State::Comment;
            // `<!-->` is a whole comment: the end mark may share the dashes.
            return Found::Pass(2);
        }
        match rest.get(1) {
            None => Found::More,
            Some(b) if b.is_ascii_alphabetic() => tag_end(rest).map_or(Found::More, Found::Tag),
            Some(_) => Found::Pass(1),
        }
    }

    /// Up to `</element`.
    fn raw(&mut self, rest: &[u8], element: &str) -> Found {
        let open = rest.iter().position(|b| *b == b'<').unwrap_or(rest.len());
        if open > 0 {
            return Found::Pass(open);
        }
        let end = format!("</{element}");
        let n = rest.len().min(end.len());
        if !rest[..n].eq_ignore_ascii_case(&end.as_bytes()[..n]) {
            return Found::Pass(1);
        }
        match rest.get(end.len()) {
            None => Found::More,
            Some(b) if b.is_ascii_whitespace() || matches!(b, b'/' | b'>') => {
                self.state = State::Text;
                Found::Pass(n)
            }
            Some(_) => Found::Pass(n),
        }
    }

    /// A whole start tag: its links rewritten, its element's content known.
    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let name_end = tag[1..].iter().position(|b| ends_name(*b)).map_or(tag.len(), |n| n + 1);
        let name = String::from_utf8_lossy(&tag[1..name_end]).to_ascii_lowercase();
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[] as &[&str], |(_, links)| links);
        let mut written = 0;
        for (attribute, value) in attributes(tag, name_end) {
            let Ok(text) = std::str::from_utf8(&tag[value.clone()]) else { continue };
            if !links.contains(&attribute.as_str()) {
                continue;
            }
            let trimmed = text.trim_matches([' ', '\t', '\n', '\r', '\x0c']);
            if let Some(new) = (self.rewrite)(trimmed) {
                out.extend_from_slice(&tag[written..value.start]);
                out.extend_from_slice(escape(&new).as_bytes());
                written = value.end;
            }
        }
        out.extend_from_slice(&tag[written..]);
        if let Some(element) = RAW.iter().find(|element| **element == name) {
            self.state = State::Raw(element);
        }
    }
}

/// Quotes and angle brackets that a URL brought along; `&` is as the page wrote it.
fn escape(url: &str) -> String {
    url.replace('"', "&#34;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;")
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|w| w == mark)
}

/// All passes but the last `n` bytes, which may begin a mark.
fn all_but(rest: &[u8], n: usize) -> Found {
    if rest.len() > n { Found::Pass(rest.len() - n) } else { Found::More }
}

fn ends_name(b: u8) -> bool {
    b.is_ascii_whitespace() || matches!(b, b'/' | b'>')
}

/// Length of the tag that begins here, quotes respected.
fn tag_end(tag: &[u8]) -> Option<usize> {
    let mut at = 1 + tag[1..].iter().position(|b| ends_name(*b))?;
    loop {
        at = skip(tag, at, |b| b.is_ascii_whitespace() || b == b'/');
        match tag.get(at)? {
            b'>' => return Some(at + 1),
            _ => at = attribute(tag, at)?.2,
        }
    }
}

/// Attributes of a whole tag: lower-case name, and where the value is.
fn attributes(tag: &[u8], from: usize) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found: Vec<(String, std::ops::Range<usize>)> = Vec::new();
    let mut at = from;
    loop {
        at = skip(tag, at, |b| b.is_ascii_whitespace() || b == b'/');
        if matches!(tag.get(at), None | Some(b'>')) {
            return found;
        }
        let Some((name, value, next)) = attribute(tag, at) else { return found };
        found.push((String::from_utf8_lossy(&tag[name]).to_ascii_lowercase(), value));
        at = next;
    }
}

type Span = std::ops::Range<usize>;

/// One attribute from `at` on: name, value, and what follows; None where the tag is not whole.
fn attribute(tag: &[u8], at: usize) -> Option<(Span, Span, usize)> {
    // A leading `=` belongs to the name.
    let name_end = skip(tag, at + 1, |b| !ends_name(b) && b != b'=');
    let equals = skip(tag, name_end, |b| b.is_ascii_whitespace());
    if *tag.get(equals)? != b'=' {
        return Some((at..name_end, name_end..name_end, name_end));
    }
    let start = skip(tag, equals + 1, |b| b.is_ascii_whitespace());
    let quote = *tag.get(start)?;
    if matches!(quote, b'"' | b'\'') {
        let end = start + 1 + tag[start + 1..].iter().position(|b| *b == quote)?;
        return Some((at..name_end, start + 1..end, end + 1));
    }
    let end = skip(tag, start, |b| !b.is_ascii_whitespace() && b != b'>');
    tag.get(end)?;
    Some((at..name_end, start..end, end))
}

fn skip(bytes: &[u8], from: usize, what: impl Fn(u8) -> bool) -> usize {
    bytes.iter().skip(from).position(|b| !what(*b)).map_or(bytes.len(), |n| from + n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page in pieces of every size gives the same.
    fn rewritten(page: &str) -> String {
        let whole = in_pieces(page, page.len().max(1));
        for size in 1..page.len().min(9) {
            assert_eq!(in_pieces(page, size), whole, "pieces of {size}");
        }
        whole
    }

    fn in_pieces(page: &str, size: usize) -> String {
        let mut rewriter = Rewriter::new(Box::new(|url| url.starts_with('/').then(|| format!("/p{url}"))));
        let mut out = Vec::new();
        page.as_bytes().chunks(size).for_each(|piece| rewriter.push(piece, &mut out));
        rewriter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn links() {
        let cases = [
            ("<a href=\"/x\">/y</a>", "<a href=\"/p/x\">/y</a>"),
            ("<A HREF='/x'  id=1>", "<A HREF='/p/x'  id=1>"),
            ("<a href=/x>", "<a href=/p/x>"),
            ("<a\nhref = /x />", "<a\nhref = /p/x />"),
            ("<a id=\"/x\" href=\"y\">", "<a id=\"/x\" href=\"y\">"),
            ("<a title='a>b' href='/x'>", "<a title='a>b' href='/p/x'>"),
            ("<img src=\"/x\" usemap='/y' alt>", "<img src=\"/p/x\" usemap='/p/y' alt>"),
            ("<p href='/x'>", "<p href='/x'>"),
            ("a < b <3 <a href='/x'", "a < b <3 <a href='/x'"),
            ("<a href='/x?a=1&amp;b=2'>", "<a href='/p/x?a=1&amp;b=2'>"),
            ("<!-- <a href='/x'> --><a href='/x'>", "<!-- <a href='/x'> --><a href='/p/x'>"),
            ("<!--><a href='/x'>", "<!--><a href='/p/x'>"),
            ("<!doctype html><a href='/x'>", "<!doctype html><a href='/p/x'>"),
            (
                "<script src='/s'>'<a href=\"/x\">'</scripted></SCRIPT ><a href='/x'>",
                "<script src='/p/s'>'<a href=\"/x\">'</scripted></SCRIPT ><a href='/p/x'>",
            ),
            ("<title><a href='/x'></title><a href='/x'>", "<title><a href='/x'></title><a href='/p/x'>"),
            ("", ""),
        ];
        for (page, expected) in cases {
            assert_eq!(rewritten(page), expected, "{page}");
        }
    }

    #[test]
    fn endless_tags_pass() {
        let page = format!("<a href='{}", "x".repeat(2 * MAX_TAG_BYTES));
        assert_eq!(in_pieces(&page, 4096), page);
    }
}
