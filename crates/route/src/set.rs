//! The routes of one pipeline, compiled: which of them match a path.
//!
//! ```text
//! exact     "/x"          one probe for the whole path
//! tree      one node per literal or :name segment; at a node hang
//!   below     "/x/*"      matches as soon as the walk reaches the node
//!   here      "/u/:id"    matches if the path ends at the node
//!   by ending "/x/*.php"  one probe for (node, what stands behind the last dot)
//!   odd       "/x*", "/x/*/y"   compared one by one, at this node only
//! ```
//!
//! Every one of these is a list of pattern numbers in ascending order, which is the order of
//! declaration. A lookup collects the lists that apply, at most a few, and then merges them
//! lazily: who takes the first candidate pays for the first only.

use std::fmt;
use std::ops::Range;

use crate::names::{NameMap, index};
use crate::pattern::{Captures, Pattern, Segment, Shape, segment_end, text_segments};
use crate::reasons::Miss;

/// An ordered list of routes, each with one or more patterns.
#[derive(Clone, Debug, Default)]
pub struct RouteSet {
    patterns: Vec<Owned>,
    /// For each route, its patterns.
    routes: Vec<Range<usize>>,
    /// All lists of pattern numbers, one behind the other.
    lists: Vec<u32>,
    nodes: Vec<Node>,
    /// Node below a node, by the text of its segment.
    children: NameMap,
    /// Whole path → number in `exact_lists`.
    exact: NameMap,
    exact_lists: Vec<List>,
    /// What stands behind the last dot → number in `ending_lists`; the tag is the node.
    endings: NameMap,
    ending_lists: Vec<List>,
}

#[derive(Clone, Debug)]
struct Owned {
    pattern: Pattern,
    route: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct List {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    below: List,
    here: List,
    odd: List,
    /// The node of a `:name` segment, 0 if there is none (the root is nobody's child).
    param: u32,
    has_children: bool,
    has_endings: bool,
}

/// A route whose pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The route's place in the list.
    pub route: usize,
    /// The place of the pattern that matched among the route's patterns; the first that does.
    pub pattern: usize,
    /// What the pattern's variable parts matched.
    pub captures: Captures,
}

/// What [`RouteSet::explain`] says about one pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained<'a> {
    /// The route's place in the list.
    pub route: usize,
    /// One of its patterns.
    pub pattern: &'a Pattern,
    /// What it matched, or why it did not.
    pub result: Result<Captures, Miss>,
}

/// A pattern that no path can reach, because an earlier route takes all that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The route's place in the list.
    pub route: usize,
    /// The pattern's place in that route.
    pub pattern: usize,
    /// The earlier route that takes its paths.
    pub by: usize,
}

/// More than [`MAX_PATTERNS`] patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one pipeline has at most {MAX_PATTERNS} patterns")
    }
}

impl std::error::Error for TooMany {}

impl RouteSet {
    /// Compiles a list of routes; each is the list of its patterns.
    ///
    /// # Errors
    ///
    /// With more than [`MAX_PATTERNS`] patterns.
    pub fn new<R>(routes: impl IntoIterator<Item = R>) -> Result<RouteSet, TooMany>
    where
        R: IntoIterator<Item = Pattern>,
    {
        let mut builder = Builder::default();
        for route in routes {
            builder.add_route(route)?;
        }
        Ok(builder.finish())
    }

    /// How many routes it has.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The patterns of a route.
    pub fn patterns(&self, route: usize) -> impl ExactSizeIterator<Item = &Pattern> {
        let range = self.routes.get(route).cloned().unwrap_or_default();
        self.patterns[range].iter().map(|owned| &owned.pattern)
    }

    /// The pattern that made a candidate, for the names of its captures.
    ///
    /// # Panics
    ///
    /// If the candidate is not of this set.
    pub fn pattern_of(&self, candidate: &Candidate) -> &Pattern {
        &self.patterns[self.routes[candidate.route].start + candidate.pattern].pattern
    }

    /// The value of a `:name` segment.
    pub fn param<'p>(&self, name: &str, candidate: &Candidate, path: &'p [u8]) -> Option<&'p [u8]> {
        self.pattern_of(candidate)
            .param(name, &candidate.captures, path)
    }

    /// The routes that have a pattern which matches the normalised `path`, in the order of
    /// declaration, each once, with the first of its patterns that does.
    pub fn candidates<'a>(&'a self, path: &'a [u8]) -> Candidates<'a> {
        let mut sources = Sources::default();
        if path.first() == Some(&b'/') {
            self.collect(path, &mut sources);
        }
        Candidates {
            set: self,
            path,
            sources,
            last: None,
        }
    }

    /// The first candidate.
    pub fn first(&self, path: &[u8]) -> Option<Candidate> {
        self.candidates(path).next()
    }

    /// Whether any route matches; for the condition `path(…)`.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.first(path).is_some()
    }

    /// Every pattern of every route, and why it matches the path or does not. Linear.
    pub fn explain<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = Explained<'a>> {
        self.patterns.iter().map(move |owned| Explained {
            route: index(owned.route),
            pattern: &owned.pattern,
            result: owned.pattern.examine(path),
        })
    }

    /// The patterns that can never match because an earlier route takes all their paths.
    /// `always` says of a route that nothing but its patterns decides (it has no `when`): only
    /// such a route takes paths for good. A route none of whose patterns is left is dead.
    pub fn unreachable(&self, always: impl Fn(usize) -> bool) -> Vec<Unreachable> {
        let mut found = Vec::new();
        for (route, range) in self.routes.iter().enumerate() {
            for (pattern, owned) in self.patterns[range.clone()].iter().enumerate() {
                // Who takes all of its paths takes any one of them: so only those that match a
                // sample need a look, and the check is not quadratic.
                let sample = owned.pattern.sample();
                let by = self
                    .candidates(&sample)
                    .map(|candidate| candidate.route)
                    .find(|&by| {
                        by < route
                            && always(by)
                            && self
                                .patterns(by)
                                .any(|earlier| earlier.covers(&owned.pattern))
                    });
                found.extend(by.map(|by| Unreachable { route, pattern, by }));
            }
        }
        found
    }

    fn collect(&self, path: &[u8], sources: &mut Sources) {
        if let Some(number) = self.exact.get(0, path) {
            sources.push(self.exact_lists[index(number)]);
        }
        if !self.nodes.is_empty() {
            let mut ending = Ending::default();
            self.walk(0, 0, path, &mut ending, sources);
        }
    }

    /// Follows the path down from a node; `at` is the slash behind the node's own segment, or
    /// the end of the path. Every node is visited at most once, and the recursion is at most as
    /// deep as a pattern has `:name` segments.
    fn walk(
        &self,
        node: u32,
        mut at: usize,
        path: &[u8],
        ending: &mut Ending,
        sources: &mut Sources,
    ) {
        let mut number = node;
        loop {
            let node = &self.nodes[index(number)];
            sources.push(node.below);
            sources.push(node.odd);
            if node.has_endings
                && let Some(text) = ending.of(path)
                && let Some(list) = self.endings.get(number, text)
            {
                sources.push(self.ending_lists[index(list)]);
            }
            if at == path.len() {
                sources.push(node.here);
                return;
            }
            if !node.has_children && node.param == 0 {
                return;
            }
            let start = at + 1;
            at = segment_end(path, start);
            if node.param != 0 && start < at {
                self.walk(node.param, at, path, ending, sources);
            }
            if !node.has_children {
                return;
            }
            match self.children.get(number, &path[start..at]) {
                Some(child) => number = child,
                None => return,
            }
        }
    }
}

/// What stands behind the last dot of the last segment, found at most once per lookup.
#[derive(Default)]
struct Ending {
    start: Option<Option<usize>>,
}

impl Ending {
    fn of<'p>(&mut self, path: &'p [u8]) -> Option<&'p [u8]> {
        let start = *self.start.get_or_insert_with(|| start_of_ending(path));
        start.map(|start| &path[start..])
    }
}

fn start_of_ending(path: &[u8]) -> Option<usize> {
    let at = path.iter().rposition(|&byte| matches!(byte, b'.' | b'/'))?;
    (path[at] == b'.').then_some(at + 1)
}

/// Iterator over the routes that match; made by [`RouteSet::candidates`].
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    set: &'a RouteSet,
    path: &'a [u8],
    sources: Sources,
    last: Option<u32>,
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        loop {
            let number = index(self.sources.pop_least(&self.set.lists)?);
            let owned = &self.set.patterns[number];
            if self.last == Some(owned.route) {
                continue;
            }
            let route = index(owned.route);
            let pattern = number - self.set.routes[route].start;
            let mut found = Candidate {
                route,
                pattern,
                captures: Captures::default(),
            };
            // The lists by ending and the odd ones promise less than a match; asking again for
            // the others costs little and gives the captures.
            if owned
                .pattern
                .capture(self.path, &mut found.captures)
                .is_ok()
            {
                self.last = Some(owned.route);
                return Some(found);
            }
        }
    }
}

/// Ascending lists that are merged: what is left of each.
#[derive(Clone, Debug, Default)]
struct Sources {
    inline: [List; INLINE_SOURCES],
    used: usize,
    more: Vec<List>,
}

impl Sources {
    fn push(&mut self, list: List) {
        if list.start == list.end {
            return;
        }
        match self.inline.get_mut(self.used) {
            Some(place) => {
                *place = list;
                self.used += 1;
            }
            None => self.more.push(list),
        }
    }

    /// The least number in front of a list, which `numbers` holds; it is taken off.
    fn pop_least(&mut self, numbers: &[u32]) -> Option<u32> {
        let mut least: Option<(&mut List, u32)> = None;
        for list in self.inline[..self.used].iter_mut().chain(&mut self.more) {
            if list.start == list.end {
                continue;
            }
            let number = numbers[index(list.start)];
            if least.as_ref().is_none_or(|&(_, least)| number < least) {
                least = Some((list, number));
            }
        }
        let (list, number) = least?;
        list.start += 1;
        Some(number)
    }
}

#[derive(Default)]
struct Builder {
    set: RouteSet,
    nodes: Vec<BuildNode>,
    exact: Vec<Vec<u32>>,
    endings: Vec<Vec<u32>>,
}

#[derive(Default)]
struct BuildNode {
    node: Node,
    below: Vec<u32>,
    here: Vec<u32>,
    odd: Vec<u32>,
}

impl Builder {
    fn add_route(&mut self, patterns: impl IntoIterator<Item = Pattern>) -> Result<(), TooMany> {
        let start = self.set.patterns.len();
        let route = u32::try_from(self.set.routes.len()).map_err(|_| TooMany)?;
        for pattern in patterns {
            if self.set.patterns.len() == MAX_PATTERNS {
                return Err(TooMany);
            }
            let number = u32::try_from(self.set.patterns.len()).map_err(|_| TooMany)?;
            self.add_pattern(number, &pattern);
            self.set.patterns.push(Owned { pattern, route });
        }
        self.set.routes.push(start..self.set.patterns.len());
        Ok(())
    }

    fn add_pattern(&mut self, number: u32, pattern: &Pattern) {
        match pattern.shape() {
            Shape::Exact(path) => add(&mut self.set.exact, &mut self.exact, 0, path, number),
            Shape::Below(prefix) => {
                let node = self.node(&text_segments(prefix));
                self.nodes[index(node)].below.push(number);
            }
            Shape::Segments { segments, below } => {
                let node = self.node(segments);
                let node = &mut self.nodes[index(node)];
                if *below {
                    &mut node.below
                } else {
                    &mut node.here
                }
                .push(number);
            }
            Shape::Affix { before, after } => {
                // It hangs at the last segment that is whole before the star.
                let slash = before.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                let node = self.node(&text_segments(&before[..slash]));
                match start_of_ending(after) {
                    Some(start) => {
                        let ending = &after[start..];
                        add(
                            &mut self.set.endings,
                            &mut self.endings,
                            node,
                            ending,
                            number,
                        );
                        self.nodes[index(node)].node.has_endings = true;
                    }
                    None => self.nodes[index(node)].odd.push(number),
                }
            }
        }
    }

    /// The node of these segments, made if there is none.
    fn node(&mut self, segments: &[Segment]) -> u32 {
        if self.nodes.is_empty() {
            self.nodes.push(BuildNode::default());
        }
        let mut at = 0;
        for segment in segments {
            // At most MAX_PATTERNS × MAX_PATTERN_BYTES nodes: the number fits.
            let new = u32::try_from(self.nodes.len()).expect("patterns and lengths are limited");
            let node = &mut self.nodes[index(at)].node;
            let child = match segment {
                Segment::Param if node.param != 0 => node.param,
                Segment::Param => {
                    node.param = new;
                    new
                }
                Segment::Text(text) => {
                    node.has_children = true;
                    self.set.children.get_or_insert(at, text, new)
                }
            };
            if child == new {
                self.nodes.push(BuildNode::default());
            }
            at = child;
        }
        at
    }

    fn finish(self) -> RouteSet {
        let Builder {
            mut set,
            nodes,
            exact,
            endings,
        } = self;
        let lists = &mut set.lists;
        let mut append = |list: Vec<u32>| {
            // Each pattern stands in one list, so there are at most MAX_PATTERNS numbers.
            let place = |n: usize| u32::try_from(n).expect("patterns are limited");
            let start = place(lists.len());
            lists.extend(list);
            List {
                start,
                end: place(lists.len()),
            }
        };
        set.exact_lists = exact.into_iter().map(&mut append).collect();
        set.ending_lists = endings.into_iter().map(&mut append).collect();
        for BuildNode {
            node,
            below,
            here,
            odd,
        } in nodes
        {
            let [below, here, odd] = [below, here, odd].map(&mut append);
            set.nodes.push(Node {
                below,
                here,
                odd,
                ..node
            });
        }
        set
    }
}

/// Adds a number to the list of a key.
fn add(map: &mut NameMap, lists: &mut Vec<Vec<u32>>, tag: u32, key: &[u8], number: u32) {
    let new = u32::try_from(lists.len()).expect("patterns are limited");
    let list = map.get_or_insert(tag, key, new);
    if list == new {
        lists.push(Vec::new());
    }
    lists[index(list)].push(number);
}

/// The most patterns of one pipeline: a generated list of redirects has some ten thousand.
pub const MAX_PATTERNS: usize = 1_000_000;

/// So many lists are merged without an allocation. Only paths through several `:name` branches
/// with patterns of every kind at each have more.
const INLINE_SOURCES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(routes: &[&[&str]]) -> RouteSet {
        let parse = |text: &&str| Pattern::parse(text).unwrap();
        RouteSet::new(routes.iter().map(|patterns| patterns.iter().map(parse))).unwrap()
    }

    fn check(routes: &[&[&str]], path: &str, expected: &[usize]) {
        let set = set(routes);
        let found: Vec<_> = set
            .candidates(path.as_bytes())
            .map(|found| found.route)
            .collect();
        assert_eq!(found, expected, "for {path}");
        assert_eq!(
            set.first(path.as_bytes()).map(|found| found.route),
            expected.first().copied()
        );
    }

    #[test]
    fn candidates_come_in_the_order_of_declaration() {
        let routes: &[&[&str]] = &[
            &["*.php"],
            &["/a/*"],
            &["/a/b.php"],
            &["/a/:x"],
            &["/:x/b.php"],
            &["/a/*.php"],
            &["/a*"],
            &["/*"],
            &["/b/*", "/a/b*", "/a/b.php", "*"],
        ];
        check(routes, "/a/b.php", &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        check(routes, "/a/b.php/", &[1, 6, 7, 8]);
        check(routes, "/a", &[1, 6, 7, 8]);
        check(routes, "/", &[7, 8]);
        check(routes, "/c/b.php", &[0, 4, 7, 8]);
        check(routes, "*", &[]);
        check(&[], "/", &[]);
    }

    #[test]
    fn the_first_pattern_of_a_route_that_matches_gives_the_captures() {
        let set = set(&[&["/x"], &["/a/:one", "/:two/b", "/a/*"]]);
        let path = b"/a/b";
        let found = set.first(path).unwrap();
        assert_eq!((found.route, found.pattern), (1, 0));
        assert_eq!(set.param("one", &found, path), Some(&b"b"[..]));
        assert_eq!(set.param("two", &found, path), None);
        assert_eq!(set.pattern_of(&found).as_str(), "/a/:one");
        let path = b"/a/b/c";
        let found = set.first(path).unwrap();
        assert_eq!((found.pattern, found.captures.rest(path)), (2, &b"b/c"[..]));
    }

    #[test]
    fn more_lists_than_fit_inline_are_merged_too() {
        let routes: &[&[&str]] = &[
            &["/:a/*"],
            &["/a/*"],
            &["/:a/:b/*"],
            &["/a/:b/*"],
            &["/:a/b/*"],
            &["/a/b/*"],
            &["/*"],
            &["/a/b/c"],
            &["/:a/b/:c"],
            &["/a/:b/:c"],
            &["/a/b/c*"],
            &["/a/b*"],
            &["/a*"],
        ];
        check(routes, "/a/b/c", &(0..routes.len()).collect::<Vec<_>>());
    }

    #[test]
    fn explain_says_of_every_pattern_why() {
        let set = set(&[&["/x", "/u/:id"], &["*.php"], &["/*"]]);
        let said: Vec<_> = set
            .explain(b"/u/")
            .map(|said| (said.route, said.pattern.as_str(), said.result.err()))
            .collect();
        assert_eq!(
            said,
            [
                (0, "/x", Some(Miss::OtherPath)),
                (0, "/u/:id", Some(Miss::OtherSegment(2))),
                (1, "*.php", Some(Miss::OtherEnd)),
                (2, "/*", None),
            ]
        );
    }

    #[test]
    fn what_an_earlier_route_takes_is_unreachable() {
        let set = set(&[
            &["/api/*"],
            &["/api/v1/*", "/v1"],
            &["*.php"],
            &["/app/*.php"],
            &["/*"],
            &["/other"],
        ]);
        assert_eq!(
            set.unreachable(|_| true),
            [
                Unreachable {
                    route: 1,
                    pattern: 0,
                    by: 0
                },
                Unreachable {
                    route: 3,
                    pattern: 0,
                    by: 2
                },
                Unreachable {
                    route: 5,
                    pattern: 0,
                    by: 4
                },
            ]
        );
        assert_eq!(
            set.unreachable(|route| route == 4),
            [Unreachable {
                route: 5,
                pattern: 0,
                by: 4
            }]
        );
        assert_eq!(
            set.patterns(1).map(Pattern::as_str).collect::<Vec<_>>(),
            ["/api/v1/*", "/v1"]
        );
        assert_eq!((set.len(), set.patterns(99).len()), (6, 0));
    }
}
