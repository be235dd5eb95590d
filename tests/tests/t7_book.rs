//! The book in `docs` is whole: every page is listed once, and every link leads somewhere.
//!
//! `mdbook build docs` makes it; what that would complain of is looked at here, without it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use forebay_tests::docs::{pages, root};

/// A page's text without what is in fences and in code spans: no links are there.
fn prose(page: &Path) -> String {
    let text = std::fs::read_to_string(page).expect("a page");
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        // Every other piece between backticks is code.
        for (index, piece) in line.split('`').enumerate() {
            prose.push_str(if index % 2 == 0 { piece } else { "code" });
        }
        prose.push('\n');
    }
    assert!(!fenced, "{}: a fence is open at its end", page.display());
    prose
}

/// The targets of the links `[text](target)`.
fn links(page: &Path) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1);
    targets
        .map(|rest| {
            let (target, _) = rest.split_once(')').expect("the end of a link");
            target.to_owned()
        })
        .collect()
}

/// The anchors of a page, as GitHub and mdBook make them of headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).expect("a page");
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let anchor: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        assert!(
            anchors.insert(anchor),
            "{}: two headings {heading:?}",
            page.display()
        );
    }
    anchors
}

/// Without `..` and links, so that two ways to one page are equal.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn links_lead_to_pages_and_headings() {
    let mut seen = 0;
    for page in pages() {
        for link in links(&page) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = match link.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor)),
                None => (link.as_str(), None),
            };
            let target = match path {
                "" => page.clone(),
                path => page.parent().expect("a directory").join(path),
            };
            assert!(target.exists(), "{}: no {link}", page.display());
            if let Some(anchor) = anchor {
                assert!(
                    anchors(&target).contains(anchor),
                    "{}: no heading for {link}",
                    page.display()
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} links are found");
}

#[test]
fn every_page_is_listed_once() {
    let docs = plain(&root().join("docs"));
    let summary = docs.join("SUMMARY.md");
    let mut listed = BTreeSet::new();
    for link in links(&summary) {
        let page = plain(&docs.join(&link));
        assert!(listed.insert(page), "{link} is listed twice");
    }
    let pages = pages().iter().map(|page| plain(page)).collect::<Vec<_>>();
    let pages = pages
        .into_iter()
        .filter(|page| page.starts_with(&docs) && *page != summary);
    assert_eq!(listed, pages.collect());
}

/// A page of the book is also read at the place where the repository is shown; a link out of `docs`
/// is nothing in the book.
#[test]
fn the_book_has_no_links_out_of_it() {
    let docs = plain(&root().join("docs"));
    for page in pages() {
        let page = plain(&page);
        if !page.starts_with(&docs) {
            continue;
        }
        for link in links(&page).iter().filter(|link| !link.contains("://")) {
            let path = link.split('#').next().unwrap_or_default();
            let target = plain(&page.parent().expect("a directory").join(path));
            assert!(target.starts_with(&docs), "{}: {link}", page.display());
        }
    }
}
