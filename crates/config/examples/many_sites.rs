//! Times the loading of a configuration of many sites: `many_sites [SITES] [FILE]`. With a file
//! name, the configuration is written there, too.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_config::{
    Answers, Arg, Directive, LoadOptions, Opt, Registry, Type, Vars, When, load_text,
};

static SITE: Directive = Directive::declaration("site", "Answer for these hosts.")
    .args(&[Arg::required("HOST", Type::List(&Type::Host))])
    .items("PIPELINE", Type::Pipeline)
    .options(&[Opt::new("name", Type::Name, "In logs.").unset("the first host")])
    .distinct("HOST", None);
static UPSTREAM: Directive = Directive::declaration("upstream", "A pool of peers.")
    .args(&[Arg::required("NAME", Type::Name)])
    .items("PEER", Type::TARGET)
    .namespace("upstream");
static ROUTE: Directive = Directive::route("route", "Steps for some paths.")
    .args(&[Arg::required("PATTERN", Type::List(&Type::Pattern))])
    .items("PIPELINE", Type::Pipeline);
static HEADERS: Directive = Directive::filter("headers", "Change fields.")
    .options(&[Opt::new("response", Type::Fields(Vars::Response), "Up.")])
    .when(When::Response);
static LIMIT: Directive =
    Directive::filter("limit", "Sizes.")
        .options(&[Opt::new("body", Type::SIZE, "Else 413.").default("\"1GB\"")]);
static FILES: Directive = Directive::handler("files", "Files under ROOT.")
    .args(&[Arg::required("ROOT", Type::PathTemplate)])
    .options(&[
        Opt::new("max_age", Type::DURATION, "Cache-Control."),
        Opt::new("immutable", Type::Boolean, "Cache-Control.").default("false"),
    ])
    .answers(Answers::Sometimes);
static PROXY: Directive = Directive::handler("proxy", "HTTP to an upstream.")
    .args(&[Arg::required(
        "TARGET",
        Type::Or(&[Type::Declared(&["upstream"]), Type::TARGET]),
    )])
    .options(&[Opt::new("read_timeout", Type::DURATION, "Between bytes.").default("\"60s\"")]);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000);
    let text = configuration(count);
    if let Some(path) = arguments.next() {
        std::fs::write(path, &text).expect("the file can be written");
    }
    let registry = Registry::new([&SITE, &UPSTREAM, &ROUTE, &HEADERS, &LIMIT, &FILES, &PROXY]);
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5);
    let mut least = Duration::MAX;
    for _ in 0..rounds {
        let (copy, began) = (text.clone().into_bytes(), Instant::now());
        let loaded = load_text(
            Path::new("many.lua"),
            copy,
            &registry,
            &LoadOptions::default(),
        );
        let took = began.elapsed();
        least = least.min(took);
        match loaded {
            Ok(loaded) => {
                let declared = loaded.declarations.len();
                println!("{took:?} for {declared} declarations, {} bytes", text.len());
            }
            Err(report) => {
                print!("{}", report.render());
                return;
            }
        }
    }
    println!("least {least:?}");
}

/// Sites of two hosts and three to five steps, as people write them.
fn configuration(count: usize) -> String {
    let mut text =
        String::from("local app = upstream \"app\" { \"10.0.0.1:80\", \"10.0.0.2:80\" }\n");
    for n in 0..count {
        let _ = writeln!(
            text,
            "site {{ \"site{n}.example\", \"www.site{n}.example\","
        );
        if n % 2 == 0 {
            let _ = writeln!(
                text,
                "  headers {{ response = {{ x_site = \"{n}\", server = false }} }},"
            );
        }
        let _ = writeln!(
            text,
            "  route \"/assets/*\" {{ files \"/srv/{n}\" {{ max_age = \"1y\", immutable = true }} }},"
        );
        if n % 3 == 0 {
            let _ = writeln!(text, "  limit {{ body = \"64MB\" }},");
        }
        let _ = writeln!(text, "  files \"/srv/{n}/public\",\n  proxy(app),\n}}");
    }
    text
}
