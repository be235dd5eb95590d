//! `listing`: a directory that has no index as a page, or as JSON for who prefers that.
//!
//! Read, sorted and written on the pool: none of it keeps a worker. Links in it are relative, so
//! that it is right behind whatever a `rewrite` has taken off the path.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use forebay_sys::files::{Facts, Kind, Links, Root};
use rustix::fs::{AtFlags, Dir, FileType, statat};
use serde_json::json;

use super::path::Hide;
use crate::exchange::{Exchange, prefers_json};
use crate::files::Disk;

/// A directory that has more is shown without the rest: this many make a page of 2 MB, which takes
/// some 20 ms of a thread of the pool.
const MAX_ENTRIES: usize = 10_000;

/// What a browser may do with the page: nothing but show it.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'self'";

/// How a client wants a listing.
#[derive(Debug)]
pub struct Wish {
    /// The path as the client knows it.
    path: String,
    column: Column,
    descending: bool,
    is_json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Size,
    Time,
}

impl Column {
    const ALL: [(Column, &'static str, &'static str); 3] = [
        (Column::Name, "name", "Name"),
        (Column::Size, "size", "Size"),
        (Column::Time, "time", "Changed"),
    ];
}

/// A listing that can be sent.
pub struct Page {
    pub kind: &'static str,
    pub body: Bytes,
}

/// Something in a directory.
struct Entry {
    name: Vec<u8>,
    is_dir: bool,
    len: u64,
    /// Seconds since 1970.
    time: i64,
}

impl Wish {
    /// The one of this request.
    pub fn of(exchange: &Exchange) -> Wish {
        let request = &exchange.request;
        let path = request.original_uri().split('?').next().unwrap_or("/");
        let mut wish = Wish {
            path: decoded(path),
            column: Column::Name,
            descending: false,
            is_json: prefers_json(&request.fields),
        };
        for pair in request.query().unwrap_or("").split('&') {
            match pair.split_once('=') {
                Some(("sort", name)) => {
                    let mut all = Column::ALL.into_iter();
                    if let Some((column, ..)) = all.find(|(_, known, _)| *known == name) {
                        wish.column = column;
                    }
                }
                Some(("order", order)) => wish.descending = order == "desc",
                _ => {}
            }
        }
        wish
    }

    fn order(&self, a: &Entry, b: &Entry) -> Ordering {
        let by_name = || {
            let lower = |entry: &Entry| entry.name.to_ascii_lowercase();
            lower(a).cmp(&lower(b)).then_with(|| a.name.cmp(&b.name))
        };
        let ordering = match self.column {
            Column::Name => by_name(),
            // That of a directory says nothing of what is in it.
            Column::Size if a.is_dir && b.is_dir => by_name(),
            Column::Size => a.len.cmp(&b.len).then_with(by_name),
            Column::Time => a.time.cmp(&b.time).then_with(by_name),
        };
        let ordering = if self.descending {
            ordering.reverse()
        } else {
            ordering
        };
        b.is_dir.cmp(&a.is_dir).then(ordering)
    }
}

/// Lists the directory `dir`, which is `path` below the root. Waits for the disk.
///
/// # Errors
/// The directory cannot be read.
pub fn page(
    disk: &dyn Disk,
    root: &Root,
    links: Links,
    path: &[u8],
    dir: &File,
    hide: &Hide,
    wish: &Wish,
) -> io::Result<Page> {
    let linked = |name: &[u8]| {
        let file = disk.open(root, &[path, name].concat(), links).ok()?;
        Facts::of(&file).ok()
    };
    let (mut entries, is_whole) = read(dir, hide, linked)?;
    entries.sort_by(|a, b| wish.order(a, b));
    Ok(if wish.is_json {
        Page {
            kind: "application/json",
            body: as_json(&entries, is_whole, wish).into(),
        }
    } else {
        Page {
            kind: "text/html; charset=utf-8",
            body: as_html(&entries, is_whole, wish).into(),
        }
    })
}

/// What is in a directory and may be sent, and whether that is all of it. `linked` follows a
/// symbolic link as far as it may be followed.
fn read(
    dir: &File,
    hide: &Hide,
    linked: impl Fn(&[u8]) -> Option<Facts>,
) -> io::Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    for found in Dir::read_from(dir)? {
        let found = found?;
        let name = found.file_name().to_bytes();
        // `.` and `..` among them.
        if hide.refuses(name) {
            continue;
        }
        if entries.len() == MAX_ENTRIES {
            return Ok((entries, false));
        }
        let entry = match found.file_type() {
            FileType::Symlink => linked(name).map(|facts| Entry {
                name: name.to_vec(),
                is_dir: facts.kind == Kind::Directory,
                len: facts.len,
                time: facts.mtime_seconds(),
            }),
            FileType::RegularFile | FileType::Directory | FileType::Unknown => stated(dir, name),
            _ => None,
        };
        entries.extend(entry);
    }
    Ok((entries, true))
}

/// What has gone meanwhile, or is nothing that is sent, is left out.
fn stated(dir: &File, name: &[u8]) -> Option<Entry> {
    let stat = statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    matches!(kind, FileType::RegularFile | FileType::Directory).then(|| Entry {
        name: name.to_vec(),
        is_dir: kind == FileType::Directory,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        time: stat.st_mtime,
    })
}

// --- Writing -----------------------------------------------------------------------------------

fn as_json(entries: &[Entry], is_whole: bool, wish: &Wish) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| {
            let mut value = json!({
                "name": String::from_utf8_lossy(&entry.name),
                "type": if entry.is_dir { "directory" } else { "file" },
                "href": href(entry),
                "modified": Time::of(entry.time).stamp(),
            });
            if !entry.is_dir {
                value["size"] = entry.len.into();
            }
            value
        })
        .collect();
    let value = json!({ "path": wish.path, "complete": is_whole, "entries": entries });
    format!("{value}\n")
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;\
background:Canvas;color:CanvasText}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{width:100%;border-collapse:collapse}\
th{text-align:left;border-bottom:1px solid GrayText}\
th a{color:inherit;text-decoration:none}\
th,td{padding:.35rem .5rem;vertical-align:top}\
td:first-child{width:100%;overflow-wrap:anywhere}\
td:first-child a{display:block}\
td+td,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
a{text-decoration:none}a:hover{text-decoration:underline}\
tbody tr:hover{background:color-mix(in srgb,CanvasText 8%,Canvas)}\
@media(max-width:30rem){time span{display:none}th,td{padding:.6rem .25rem}}";

fn as_html(entries: &[Entry], is_whole: bool, wish: &Wish) -> String {
    let mut html = String::with_capacity(2048 + entries.len() * 160);
    let title = Escaped(&wish.path);
    // Writing to a String does not fail.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title>\n<style>{STYLE}</style></head>\n<body><h1>"
    );
    crumbs(&mut html, &wish.path);
    html.push_str("</h1>\n<table><thead><tr>");
    for (column, name, title) in Column::ALL {
        let is_this = column == wish.column;
        let (sorted, next) = match (is_this, wish.descending) {
            (true, false) => (" aria-sort=\"ascending\"", "desc"),
            (true, true) => (" aria-sort=\"descending\"", "asc"),
            (false, _) => ("", "asc"),
        };
        let arrow = match (is_this, wish.descending) {
            (true, false) => " \u{2191}",
            (true, true) => " \u{2193}",
            (false, _) => "",
        };
        let _ = write!(
            html,
            "<th{sorted}><a href=\"?sort={name}&amp;order={next}\">{title}{arrow}</a></th>"
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    if wish.path.trim_matches('/').is_empty() {
        // At the top.
    } else {
        html.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        let name = String::from_utf8_lossy(&entry.name);
        let (name, slash) = (Escaped(&name), if entry.is_dir { "/" } else { "" });
        let _ = write!(
            html,
            "<tr><td><a href=\"{}\">{name}{slash}</a></td><td>",
            href(entry)
        );
        if !entry.is_dir {
            let _ = write!(html, "<span title=\"{} bytes\">", entry.len);
            size(&mut html, entry.len);
            html.push_str("</span>");
        }
        let time = Time::of(entry.time);
        let _ = writeln!(
            html,
            "</td><td><time datetime=\"{}\">{}<span> {}</span></time></td></tr>",
            time.stamp(),
            time.date(),
            time.clock()
        );
    }
    html.push_str("</tbody></table>\n");
    if entries.is_empty() {
        html.push_str("<p>There is nothing in it.</p>\n");
    }
    if !is_whole {
        let _ = writeln!(
            html,
            "<p>There is more: only {MAX_ENTRIES} entries are shown.</p>"
        );
    }
    html.push_str("</body></html>\n");
    html
}

/// The path with a link to each directory on the way.
fn crumbs(html: &mut String, path: &str) {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let up = |count: usize| "../".repeat(count);
    if names.is_empty() {
        html.push('/');
        return;
    }
    let _ = write!(html, "<a href=\"{}\">/</a>", up(names.len()));
    for (at, name) in names.iter().enumerate() {
        let (name, left) = (Escaped(name), names.len() - 1 - at);
        let _ = match left {
            0 => write!(html, "{name}/"),
            _ => write!(html, "<a href=\"{}\">{name}/</a>", up(left)),
        };
    }
}

/// A relative reference to an entry. Everything that means anything anywhere is escaped: a name
/// `javascript:x` is no scheme, and `?` no query.
fn href(entry: &Entry) -> String {
    let mut href = String::with_capacity(entry.name.len() + 1);
    for byte in &entry.name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                href.push(char::from(*byte));
            }
            _ => {
                let _ = write!(href, "%{byte:02X}");
            }
        }
    }
    if entry.is_dir {
        href.push('/');
    }
    href
}

/// Text that means nothing in HTML.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Among them those that turn the direction of what follows.
                char if char.is_control() || is_format(char) => f.write_char('\u{fffd}')?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// Invisible ones that make `gpj.exe` look like `exe.jpg`.
fn is_format(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A path without its escapes, as far as it is text.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    // What it was answered for is complete; what is not is shown as it is.
    if !super::path::decode(path, &mut bytes) {
        return path.to_owned();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Three digits and a unit, in powers of 1,024.
fn size(html: &mut String, len: u64) {
    let mut rest = len;
    let mut tenths = 0;
    let mut units = ["B", "KB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next();
    while rest >= 1024 {
        tenths = rest % 1024 * 10 / 1024;
        rest /= 1024;
        unit = units.next();
    }
    let unit = unit.unwrap_or("");
    let _ = if len >= 1024 && rest < 10 {
        write!(html, "{rest}.{tenths} {unit}")
    } else {
        write!(html, "{rest} {unit}")
    };
}

/// A time as a calendar says it, in UTC.
struct Time {
    year: i64,
    month: i64,
    day: i64,
    /// Of the day.
    seconds: i64,
}

impl Time {
    /// From seconds since 1970; nothing before the year 0 or after 9999.
    fn of(seconds: i64) -> Time {
        let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
        let (days, seconds) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years
        // begin in March there, so that the leap day is a year's last.
        let shifted = days + 719_468;
        let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (day, month) = (
            day - (153 * month + 2) / 5 + 1,
            if month < 10 { month + 3 } else { month - 9 },
        );
        Time {
            year: era * 400 + year + i64::from(month <= 2),
            month,
            day,
            seconds,
        }
    }

    fn date(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn clock(&self) -> String {
        format!("{:02}:{:02}", self.seconds / 3600, self.seconds / 60 % 60)
    }

    /// RFC 3339.
    fn stamp(&self) -> String {
        format!("{}T{}:{:02}Z", self.date(), self.clock(), self.seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_a_calendar_says_them() {
        for (seconds, stamp) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_580_608_922, "2020-02-02T02:02:02Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(Time::of(seconds).stamp(), stamp);
        }
    }

    #[test]
    fn sizes_for_people() {
        for (len, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KB"),
            (1536, "1.5 KB"),
            (10_240, "10 KB"),
            (1_048_576, "1.0 MB"),
            (u64::MAX, "15 EB"),
        ] {
            let mut html = String::new();
            size(&mut html, len);
            assert_eq!(html, text);
        }
    }
}
