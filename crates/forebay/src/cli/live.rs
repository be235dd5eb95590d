//! `forebay explain --live`: what a running server has stored, and what is on its way.

use std::fmt::Write as _;
use std::time::Duration;

use super::admin::Admin;
use super::upstream::encoded;
use crate::explain::harmless;
use crate::steps::cache::live::{Asked, Fill, Live, Object, Stream};

/// It looks at every object once, on a thread that stands back behind the workers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why nothing can be told.
pub enum Why {
    /// What was asked is wrong.
    Wrong(String),
    /// It could not be done.
    Failed(String),
}

/// Asks the running server; as it answers, or for a person to read.
pub fn ask(admin: &Admin, url: &str, json: bool) -> Result<String, Why> {
    let target = format!("/cached?url={}", encoded(url));
    let answer = admin.ask("GET", &target, Some(PATIENCE));
    let answer = answer.map_err(Why::Failed)?;
    match answer.status {
        200 if json => Ok(answer.text),
        200 => Ok(match serde_json::from_str::<Live>(&answer.text) {
            Ok(found) => show(url, &found),
            // A server of another version: what it says is still worth showing.
            Err(_) => answer.text,
        }),
        400 | 414 | 422 | 431 => Err(Why::Wrong(answer.text.trim_end().to_owned())),
        _ => Err(Why::Failed(answer.text.trim_end().to_owned())),
    }
}

fn show(url: &str, found: &Live) -> String {
    let mut out = Told(String::new());
    for one in &found.stored {
        one.show(&mut out);
    }
    for one in &found.asked {
        one.show(&mut out);
    }
    for one in &found.streams {
        one.show(&mut out);
    }
    for one in &found.passed {
        out.key(&one.key);
        out.line("store", &one.store);
        let text = format!(
            "not stored: {}; for {} s more nobody waits for what another one asks for",
            one.why,
            one.for_more_ms.div_ceil(1000)
        );
        out.line("passed", &text);
    }
    match out.0.is_empty() {
        true => format!("nothing is stored for {url}, and nothing is on its way\n"),
        false => out.0,
    }
}

/// What is told, line by line. Writing to a text cannot fail.
struct Told(String);

impl Told {
    fn key(&mut self, key: &str) {
        let _ = writeln!(self.0, "{}", harmless(key));
    }

    /// Nothing, where there is nothing to say.
    fn line(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            let _ = writeln!(self.0, "  {name:10}{}", harmless(text));
        }
    }
}

/// A time that has passed: to the second, but what has just begun.
fn time(ms: u64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        _ => format!("{} s", ms / 1000),
    }
}

fn readers(count: usize) -> String {
    match count {
        0 => String::new(),
        count => count.to_string(),
    }
}

impl Asked {
    fn show(&self, out: &mut Told) {
        out.key(&self.key);
        out.line("store", &self.store);
        let what = match &*self.whom {
            "origin" => "of the origin, which has not answered",
            "disk" => "of a disk, which has not answered",
            _ => "of compress, which makes a coded body",
        };
        let waiting = match self.waiting {
            0 => String::new(),
            1 => "; 1 more request waits for it".to_owned(),
            more => format!("; {more} more requests wait for it"),
        };
        let since = time(self.for_ms);
        out.line("asked", &format!("{since} ago {what}{waiting}"));
    }
}

impl Stream {
    fn show(&self, out: &mut Told) {
        out.key(&self.key);
        out.line("store", &format!("none: it runs beside {}", self.store));
        let text = format!(
            "{} bytes in {}; what is kept for slower readers takes {} bytes of memory",
            self.bytes,
            time(self.for_ms),
            self.window_bytes
        );
        out.line("stream", &text);
        out.line("readers", &readers(self.readers));
        out.line("type", &self.media_type);
        out.line("vary", &self.vary.join("; "));
        out.line("tags", &self.tags.join(" "));
    }
}

impl Object {
    fn show(&self, out: &mut Told) {
        out.key(&self.key);
        out.line("store", &self.store);
        if self.hidden {
            let text =
                "not used yet: when all of it has come, it takes the place of what is stored";
            out.line("place", text);
        }
        if let Some(coding) = &self.coding {
            out.line("coding", &format!("{coding}, made by compress"));
        }
        out.line("status", &self.status.to_string());
        out.line("body", &self.body());
        for fill in &self.fills {
            out.line("fill", &fill.text());
        }
        out.line("readers", &readers(self.readers));
        let fresh = match self.ttl {
            ttl @ 0.. => format!("fresh for {ttl} s more"),
            ttl => format!("stale for {} s", -ttl),
        };
        out.line("age", &format!("{} s, {fresh}", self.age));
        let lifetime = format!("{} s: {}", self.lifetime, self.lifetime_by);
        out.line("lifetime", &lifetime);
        out.line("stored", &self.stored_by);
        out.line("ETag", self.etag.as_deref().unwrap_or_default());
        out.line("vary", &self.vary.join("; "));
        out.line("tags", &self.tags.join(" "));
        for now in &self.now {
            out.line("now", now);
        }
    }

    fn body(&self) -> String {
        let mut text = match (self.bytes, self.blocks_in_all) {
            (Some(bytes), Some(all)) => {
                format!("{bytes} bytes, {} of {all} blocks are there", self.blocks)
            }
            _ => "of a length that is not known yet".to_owned(),
        };
        if self.on_disk {
            text.push_str(", and on a disk");
        }
        if self.windowed {
            text.push_str(", too large for memory: only what is around its fastest reader is kept");
        }
        text
    }
}

impl Fill {
    fn text(&self) -> String {
        let of = match self.bytes_in_all {
            Some(all) => format!("{} of {all} bytes", self.bytes),
            None => format!("{} bytes", self.bytes),
        };
        let from = match self.from {
            0 => String::new(),
            from => format!(" from byte {from} on"),
        };
        format!("{of}{from} have come in {}", time(self.for_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_and_on_its_way_is_readable() {
        let json = r#"{ "stored": [{ "store": "default", "key": "http://a.test/x\nred", "coding": null,
            "status": 200, "age": 5, "ttl": -3, "lifetime": 2, "lifetime_by": "max-age (§5)",
            "stored_by": "public (§6)", "vary": ["accept-encoding:gzip"], "tags": ["a", "b"],
            "etag": "\u001b", "bytes": 200000, "blocks": 1, "blocks_in_all": 4, "on_disk": true,
            "fills": [{ "from": 65536, "bytes": 7, "bytes_in_all": 134464, "for_ms": 2999 }],
            "readers": 3, "now": ["it is validated first: it is no longer fresh (§4)"] },
            { "store": "default", "key": "k", "coding": "br", "status": 200, "age": 0, "ttl": 9,
            "lifetime": 9, "lifetime_by": "l", "stored_by": "s", "vary": [], "tags": [],
            "etag": null, "bytes": null, "blocks": 0, "blocks_in_all": null, "hidden": true,
            "windowed": true, "readers": 0, "now": [],
            "fills": [{ "from": 0, "bytes": 7, "bytes_in_all": null, "for_ms": 40 }] }],
            "asked": [{ "store": "big", "key": "q", "whom": "origin", "for_ms": 4100, "waiting": 1 }],
            "streams": [{ "store": "default", "key": "r", "media_type": "audio/mpeg",
            "for_ms": 60000, "bytes": 70, "window_bytes": 20, "readers": 2, "vary": [],
            "tags": ["t"] }],
            "passed": [{ "store": "default", "key": "p", "why": "it sets a cookie (§7)", "for_more_ms": 1001 }] }"#;
        let found: Live = serde_json::from_str(json).expect("what the server says");
        let expected = "\
http://a.test/x\\nred
  store     default
  status    200
  body      200000 bytes, 1 of 4 blocks are there, and on a disk
  fill      7 of 134464 bytes from byte 65536 on have come in 2 s
  readers   3
  age       5 s, stale for 3 s
  lifetime  2 s: max-age (§5)
  stored    public (§6)
  ETag      \\u{1b}
  vary      accept-encoding:gzip
  tags      a b
  now       it is validated first: it is no longer fresh (§4)
k
  store     default
  place     not used yet: when all of it has come, it takes the place of what is stored
  coding    br, made by compress
  status    200
  body      of a length that is not known yet, too large for memory: only what is around its \
fastest reader is kept
  fill      7 bytes have come in 40 ms
  age       0 s, fresh for 9 s more
  lifetime  9 s: l
  stored    s
q
  store     big
  asked     4 s ago of the origin, which has not answered; 1 more request waits for it
r
  store     none: it runs beside default
  stream    70 bytes in 60 s; what is kept for slower readers takes 20 bytes of memory
  readers   2
  type      audio/mpeg
  tags      t
p
  store     default
  passed    not stored: it sets a cookie (§7); for 2 s more nobody waits for what another one asks for
";
        assert_eq!(show("http://a.test/x", &found), expected);
        let nothing = "nothing is stored for /x, and nothing is on its way\n";
        assert_eq!(show("/x", &Live::default()), nothing);
    }
}
