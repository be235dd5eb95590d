//! Directories without an index: their listings, for programs, for curl and in a browser.

use std::io::Read;
use std::path::Path;

use forebay_tests::browser::Browser;
use forebay_tests::port::Reserved;
use forebay_tests::{Request, Server};
use tempfile::TempDir;

fn server() -> Server {
    let options = "files \"@dir@/www\" { listing = true }";
    Server::builder(&format!("site {{ \"*\", {options} }}"))
        .file("www/small.txt", "s")
        .file("www/Large.bin", vec![0; 100_000])
        .file("www/inner/index.html", "inner")
        .file("www/.hidden", "x")
        .file("www/a<b>&\"c.txt", "evil")
        .start()
}

#[test]
fn a_program_gets_json() {
    let server = server();
    let names = |target: &str| -> Vec<String> {
        let request = Request::get(target).field("Accept", "application/json");
        let response = server.client().request(&request).expect(200);
        assert_eq!(response.field("content-type"), Some("application/json"));
        let value: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
        let entries = value["entries"].as_array().expect("entries").iter();
        let name = |entry: &serde_json::Value| entry["name"].as_str().expect("a name").to_owned();
        entries.map(name).collect()
    };
    let evil = "a<b>&\"c.txt";
    assert_eq!(names("/"), ["inner", evil, "Large.bin", "small.txt"]);
    let by_size = ["inner", "Large.bin", evil, "small.txt"];
    assert_eq!(names("/?sort=size&order=desc"), by_size);
}

#[test]
fn every_link_of_the_page_leads_to_its_file() {
    let server = server();
    let mut conn = server.client().connect();
    let page = conn.get("/").expect(200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(!page.text().contains("<b>") && !page.text().contains(".hidden"));
    let links: Vec<&str> = page
        .text()
        .split("<td><a href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default())
        .collect();
    assert_eq!(links.len(), 4, "{links:?}");
    for link in links {
        let _ = conn.get(&format!("/{link}")).expect(200);
    }
    assert_eq!(conn.get("/inner/").expect(200).text(), "inner");
    // A HEAD knows its length as well.
    let head = conn.exchange(&Request::head("/")).expect(200);
    let len = page.body.len().to_string();
    assert_eq!(head.field("content-length"), Some(len.as_str()));
}

/// What `forebay serve` shows of a directory, at an address that stays the test's own.
fn serve(dir: &Path, port: &Reserved) -> Server {
    let dir = dir.to_str().expect("a path");
    let addr = port.addr().to_string();
    Server::from_command(&["serve", dir, "--listen", &addr], port.addr())
}

fn filled() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    let name = "a name that is so long that it does not fit into one line of a telephone.txt";
    std::fs::write(dir.path().join(name), "x").expect("a file");
    dir
}

#[test]
fn serve_lists_what_has_no_index() {
    let dir = filled();
    let port = Reserved::new();
    let server = serve(dir.path(), &port);
    assert!(
        server
            .client()
            .get("/")
            .expect(200)
            .text()
            .contains("telephone.txt</a>")
    );
    std::fs::write(dir.path().join("index.html"), "mine").expect("a file");
    assert_eq!(server.client().get("/").expect(200).text(), "mine");
}

#[test]
fn a_browser_shows_it_in_light_and_in_dark() {
    let dir = filled();
    let port = Reserved::new();
    let server = serve(dir.path(), &port);
    let url = format!("http://{}/", server.addr());
    for is_dark in [true, false] {
        let shown = TempDir::new().expect("a directory");
        let to = shown.path().join("page.png");
        let output = Browser::new(is_dark)
            .command
            .arg("--hide-scrollbars")
            .arg(format!("--screenshot={}", to.display()))
            .args(["--window-size=412,400", &url])
            .output()
            .expect("chromium, of the Debian package chromium");
        let png = std::fs::read(&to)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let (width, pixels) = brightness(&png);
        let ground = pixels[0];
        assert_eq!(ground < 64, is_dark, "the ground is {ground}");
        assert!(is_dark || ground > 192, "the ground is {ground}");
        // There is text on it that can be read, and none of it is cut off at the right.
        let contrast = |pixel: &u8| pixel.abs_diff(ground) > 96;
        assert!(pixels.iter().filter(|pixel| contrast(pixel)).count() > 500);
        let mut rows = pixels.chunks(width);
        assert!(rows.all(|row| !row[width - 8..].iter().any(&contrast)));
    }
}

/// The width of a picture in PNG, and the brightness of each of its pixels.
fn brightness(png: &[u8]) -> (usize, Vec<u8>) {
    let number =
        |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("4 bytes")) as usize;
    let (width, depth, kind) = (number(16), png[24], png[25]);
    let channels = match (depth, kind) {
        (8, 2) => 3,
        (8, 6) => 4,
        _ => panic!("a picture of kind {kind} with {depth} bits"),
    };
    let (mut at, mut packed) = (8, Vec::new());
    while at < png.len() {
        let len = number(at);
        if &png[at + 4..at + 8] == b"IDAT" {
            packed.extend_from_slice(&png[at + 8..at + 8 + len]);
        }
        at += 12 + len;
    }
    let mut bytes = Vec::new();
    let mut unpacked = flate2::read::ZlibDecoder::new(&packed[..]);
    unpacked.read_to_end(&mut bytes).expect("a picture");
    let mut above = vec![0; width * channels];
    let mut pixels = Vec::new();
    for line in bytes.chunks(1 + width * channels) {
        let mut row = line[1..].to_vec();
        for at in 0..row.len() {
            let left = if at < channels { 0 } else { row[at - channels] };
            let corner = if at < channels {
                0
            } else {
                above[at - channels]
            };
            let add = match line[0] {
                0 => 0,
                1 => left,
                2 => above[at],
                3 => u8::midpoint(left, above[at]),
                _ => paeth(left, above[at], corner),
            };
            row[at] = row[at].wrapping_add(add);
        }
        pixels.extend(
            row.chunks(channels)
                .map(|rgb| *rgb[..3].iter().max().expect("three")),
        );
        above = row;
    }
    (width, pixels)
}

/// The predictor of PNG's filter 4: whichever neighbour is nearest to `left + above - corner`.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(above), i16::from(corner));
    let distance = |value: i16| (a + b - c - value).abs();
    if distance(a) <= distance(b) && distance(a) <= distance(c) {
        left
    } else if distance(b) <= distance(c) {
        above
    } else {
        corner
    }
}
