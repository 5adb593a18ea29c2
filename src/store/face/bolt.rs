//! Writes a database file of bbolt, etcd's storage library, front to back: what `etcdctl snapshot restore` takes.
//!
//! ```text
//!  0, 1 meta · 2 free pages (none) · 3 buckets · 4… leaves of the first tree · its branches · next tree …
//! ```
//!
//! A file begins with where its parts are, so their sizes come first ([`Plan`]), then the content ([`Writer`]), both
//! packed by the same rule ([`Packer`]). Nodes may be longer than a page (`overflow`), so leaves hold about
//! [`LEAF_BYTES`] whatever the page size. All numbers are little endian, as on every machine that bbolt files come from.

/// Page size written into the file; bbolt takes it from there.
const PAGE: usize = 4096;

/// Bytes after which a leaf is full; one entry may be longer.
const LEAF_BYTES: usize = 64 << 10;

/// Children of a branch.
const BRANCH_CHILDREN: usize = 512;

const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKETS_PAGE: u64 = 3;
const FIRST_PAGE: u64 = 4;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// In a leaf's element: the value is a bucket.
const BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Decides which entries share a leaf.
#[derive(Default)]
struct Packer {
    entries: usize,
    bytes: usize,
}

impl Packer {
    /// Whether the next entry begins a new leaf.
    fn add(&mut self, key: usize, value: usize) -> bool {
        let entry = ELEMENT + key + value;
        let full = self.entries > 0 && PAGE_HEADER + self.bytes + entry > LEAF_BYTES;
        if full {
            *self = Packer::default();
        }
        self.entries += 1;
        self.bytes += entry;
        full
    }

    fn pages(&self) -> u64 {
        pages(PAGE_HEADER + self.bytes)
    }
}

fn pages(bytes: usize) -> u64 {
    bytes.div_ceil(PAGE).max(1) as u64
}

/// A node: its first page, and the first key in it.
#[derive(Clone)]
struct Node {
    page: u64,
    key: Vec<u8>,
}

/// A bucket whose content is a tree of its own.
#[derive(Clone, Default)]
struct Tree {
    leaves: Vec<Node>,
    /// Each level above the leaves: the nodes with their children.
    branches: Vec<Vec<(Node, Vec<Node>)>>,
}

impl Tree {
    fn root(&self) -> Option<u64> {
        let top = self.branches.last().and_then(|level| level.first()).map(|(node, _)| node);
        top.or(self.leaves.first()).map(|node| node.page)
    }

    /// Lay out the branches from a page on; gives the page after them.
    fn grow(&mut self, mut page: u64) -> u64 {
        let mut below = self.leaves.clone();
        while below.len() > 1 {
            let level: Vec<(Node, Vec<Node>)> = below
                .chunks(BRANCH_CHILDREN)
                .map(|children| {
                    let node = Node { page, key: children[0].key.clone() };
                    page += branch_pages(children);
                    (node, children.to_vec())
                })
                .collect();
            below = level.iter().map(|(node, _)| node.clone()).collect();
            self.branches.push(level);
        }
        page
    }
}

fn branch_pages(children: &[Node]) -> u64 {
    pages(PAGE_HEADER + children.iter().map(|child| ELEMENT + child.key.len()).sum::<usize>())
}

/// The first pass: what the entries' sizes make of the file. Entries come in the order of their keys, tree by tree.
pub struct Plan {
    next_page: u64,
    packer: Packer,
    tree: Tree,
    /// Name, and either a tree or the few entries that it has.
    buckets: Vec<(&'static [u8], Bucket)>,
}

enum Bucket {
    Tree(Tree),
    Inline(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Plan {
    pub fn new() -> Self {
        Plan { next_page: FIRST_PAGE, packer: Packer::default(), tree: Tree::default(), buckets: Vec::new() }
    }

    /// The next entry of the tree that [`Plan::end_tree`] ends.
    pub fn add(&mut self, key: &[u8], value_len: usize) {
        let before = self.packer.pages();
        let first = self.tree.leaves.is_empty();
        if self.packer.add(key.len(), value_len) {
            self.next_page += before;
        } else if !first {
            return;
        }
        self.tree.leaves.push(Node { page: self.next_page, key: key.to_vec() });
    }

    /// All entries so far are the content of a bucket.
    pub fn end_tree(&mut self, bucket: &'static [u8]) {
        let mut tree = std::mem::take(&mut self.tree);
        if !tree.leaves.is_empty() {
            self.next_page += std::mem::take(&mut self.packer).pages();
        }
        self.next_page = tree.grow(self.next_page);
        self.buckets.push((bucket, Bucket::Tree(tree)));
    }

    /// A bucket with few small entries, sorted by key.
    pub fn inline(&mut self, bucket: &'static [u8], entries: Vec<(Vec<u8>, Vec<u8>)>) {
        self.buckets.push((bucket, Bucket::Inline(entries)));
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.next_page * PAGE as u64
    }

    /// The pages before the first tree, and the writer for the rest.
    pub fn start(mut self) -> (Vec<u8>, Writer) {
        self.buckets.sort_by_key(|(name, _)| *name);
        let entries: Vec<Entry> = self.buckets.iter().map(|(name, bucket)| bucket.entry(name)).collect();
        let mut head = Vec::with_capacity(FIRST_PAGE as usize * PAGE);
        for number in 0..2 {
            head.extend(meta(number, self.next_page));
        }
        head.extend(page(2, FREE_LIST, 0, Vec::new()));
        head.extend(leaf(BUCKETS_PAGE, &entries));
        (head, Writer { next_page: FIRST_PAGE, packer: Packer::default(), leaf: Vec::new(), tree: Tree::default() })
    }
}

impl Bucket {
    /// The bucket in the list of all: where its root is, or (root 0) a page of its own inside the value.
    fn entry(&self, name: &[u8]) -> Entry {
        let root = match self {
            Bucket::Tree(tree) => tree.root(),
            Bucket::Inline(_) => None,
        };
        let mut value = root.unwrap_or(0).to_le_bytes().to_vec();
        value.extend(0u64.to_le_bytes());
        if root.is_none() {
            let entries: &[(Vec<u8>, Vec<u8>)] = if let Bucket::Inline(entries) = self { entries } else { &[] };
            let plain = |(key, value): &(Vec<u8>, Vec<u8>)| Entry { flags: 0, key: key.clone(), value: value.clone() };
            value.extend(node(0, LEAF, &entries.iter().map(plain).collect::<Vec<_>>()));
        }
        Entry { flags: BUCKET, key: name.to_vec(), value }
    }
}

/// The second pass: the same entries again, now with their values. Gives out finished pages.
pub struct Writer {
    next_page: u64,
    packer: Packer,
    leaf: Vec<Entry>,
    tree: Tree,
}

impl Writer {
    pub fn add(&mut self, key: Vec<u8>, value: Vec<u8>) -> Option<Vec<u8>> {
        let full = self.packer.add(key.len(), value.len()).then(|| self.finish_leaf());
        self.leaf.push(Entry { flags: 0, key, value });
        full
    }

    fn finish_leaf(&mut self) -> Vec<u8> {
        let entries = std::mem::take(&mut self.leaf);
        let key = entries.first().map(|entry| entry.key.clone()).unwrap_or_default();
        self.tree.leaves.push(Node { page: self.next_page, key });
        let bytes = leaf(self.next_page, &entries);
        self.next_page += (bytes.len() / PAGE) as u64;
        bytes
    }

    /// The rest of the tree.
    pub fn end_tree(&mut self) -> Vec<u8> {
        let mut out = if self.leaf.is_empty() { Vec::new() } else { self.finish_leaf() };
        self.packer = Packer::default();
        let mut tree = std::mem::take(&mut self.tree);
        self.next_page = tree.grow(self.next_page);
        for (node, children) in tree.branches.iter().flatten() {
            out.extend(branch(node.page, children));
        }
        out
    }
}

struct Entry {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn header(id: u64, flags: u16, count: usize, overflow: u64) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend((count as u16).to_le_bytes());
    out.extend((overflow as u32).to_le_bytes());
    out
}

/// A whole page, or several.
fn page(id: u64, flags: u16, count: usize, body: Vec<u8>) -> Vec<u8> {
    let pages = pages(PAGE_HEADER + body.len());
    let mut out = header(id, flags, count, pages - 1);
    out.extend(body);
    out.resize(pages as usize * PAGE, 0);
    out
}

fn leaf(id: u64, entries: &[Entry]) -> Vec<u8> {
    page(id, LEAF, entries.len(), leaf_body(entries))
}

/// A leaf that is no page of the file.
fn node(id: u64, flags: u16, entries: &[Entry]) -> Vec<u8> {
    let mut out = header(id, flags, entries.len(), 0);
    out.extend(leaf_body(entries));
    out
}

/// Elements (with positions counted from themselves), then keys and values.
fn leaf_body(entries: &[Entry]) -> Vec<u8> {
    let (mut elements, mut data) = (Vec::with_capacity(entries.len() * ELEMENT), Vec::new());
    for (number, entry) in entries.iter().enumerate() {
        let position = (entries.len() - number) * ELEMENT + data.len();
        for field in [entry.flags, position as u32, entry.key.len() as u32, entry.value.len() as u32] {
            elements.extend(field.to_le_bytes());
        }
        data.extend_from_slice(&entry.key);
        data.extend_from_slice(&entry.value);
    }
    elements.extend(data);
    elements
}

fn branch(id: u64, children: &[Node]) -> Vec<u8> {
    let (mut elements, mut data) = (Vec::with_capacity(children.len() * ELEMENT), Vec::new());
    for (number, child) in children.iter().enumerate() {
        let position = (children.len() - number) * ELEMENT + data.len();
        elements.extend((position as u32).to_le_bytes());
        elements.extend((child.key.len() as u32).to_le_bytes());
        elements.extend(child.page.to_le_bytes());
        data.extend_from_slice(&child.key);
    }
    elements.extend(data);
    page(id, BRANCH, children.len(), elements)
}

/// One of the two meta pages; bbolt takes the one with the higher transaction that is whole.
fn meta(number: u64, pages: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [MAGIC, VERSION, PAGE as u32, 0] {
        body.extend(field.to_le_bytes());
    }
    // Root bucket (page, sequence), free list, number of pages, transaction.
    for field in [BUCKETS_PAGE, 0, 2, pages, number] {
        body.extend(field.to_le_bytes());
    }
    body.extend(fnv1a(&body).to_le_bytes());
    page(number, META, 0, body)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
