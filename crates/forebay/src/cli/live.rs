//! `forebay explain --live`: what a running server has stored.

use std::fmt::Write as _;
use std::time::Duration;

use super::admin::Admin;
use super::upstream::encoded;
use crate::steps::cache::live::Live;

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
        200 => Ok(match serde_json::from_str::<Vec<Live>>(&answer.text) {
            Ok(found) => show(url, &found),
            // A server of another version: what it says is still worth showing.
            Err(_) => answer.text,
        }),
        400 | 414 | 422 | 431 => Err(Why::Wrong(answer.text.trim_end().to_owned())),
        _ => Err(Why::Failed(answer.text.trim_end().to_owned())),
    }
}

fn show(url: &str, found: &[Live]) -> String {
    if found.is_empty() {
        return format!("nothing is stored for {url}\n");
    }
    let mut out = String::new();
    for one in found {
        one.show(&mut out);
    }
    out
}

impl Live {
    fn show(&self, out: &mut String) {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "{}", self.key.escape_debug());
        let mut line = |name: &str, text: String| {
            if !text.is_empty() {
                let _ = writeln!(out, "  {name:10}{text}");
            }
        };
        line("store", self.store.clone());
        if let Some(coding) = &self.coding {
            line("coding", format!("{coding}, made by compress"));
        }
        line("status", self.status.to_string());
        line("body", self.body());
        let fresh = match self.ttl {
            ttl @ 0.. => format!("fresh for {ttl} s more"),
            ttl => format!("stale for {} s", -ttl),
        };
        line("age", format!("{} s, {fresh}", self.age));
        line(
            "lifetime",
            format!("{} s: {}", self.lifetime, self.lifetime_by),
        );
        line("stored", self.stored_by.clone());
        line("ETag", self.etag.clone().unwrap_or_default());
        line("vary", self.vary.join("; "));
        line("tags", self.tags.join(" "));
        for now in &self.now {
            line("now", now.clone());
        }
    }

    fn body(&self) -> String {
        let mut text = match (self.bytes, self.blocks_in_all) {
            (Some(bytes), Some(all)) => {
                format!("{bytes} bytes, {} of {all} blocks are there", self.blocks)
            }
            _ => format!(
                "{} blocks so far, of a length that is not known yet",
                self.blocks
            ),
        };
        if self.on_disk {
            text.push_str(", and on a disk");
        }
        if self.filling {
            let _ = write!(
                text,
                ", more is being brought in for {} readers",
                self.readers
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_readable() {
        let json = r#"[{ "store": "default", "key": "http://a.test/x\nred", "coding": null,
            "status": 200, "age": 5, "ttl": -3, "lifetime": 2, "lifetime_by": "max-age (§5)",
            "stored_by": "public (§6)", "vary": ["accept-encoding:gzip"], "tags": ["a", "b"],
            "etag": null, "bytes": 70000, "blocks": 1, "blocks_in_all": 2, "on_disk": true,
            "filling": true, "readers": 3, "now": ["it is validated first: it is no longer fresh (§4)"] }]"#;
        let found: Vec<Live> = serde_json::from_str(json).expect("what the server says");
        let expected = "\
http://a.test/x\\nred
  store     default
  status    200
  body      70000 bytes, 1 of 2 blocks are there, and on a disk, more is being brought in for 3 readers
  age       5 s, stale for 3 s
  lifetime  2 s: max-age (§5)
  stored    public (§6)
  vary      accept-encoding:gzip
  tags      a b
  now       it is validated first: it is no longer fresh (§4)
";
        assert_eq!(show("http://a.test/x", &found), expected);
        assert_eq!(show("/x", &[]), "nothing is stored for /x\n");
    }
}
