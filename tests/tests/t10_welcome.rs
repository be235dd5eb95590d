//! The built-in welcome page, as a browser shows it.

use std::process::Command;

use forebay_tests::Server;
use forebay_tests::browser::Browser;
use tempfile::TempDir;

/// Shows the page in a frame as wide as a telephone and as wide as a screen, and notes what it finds:
/// the least contrast of any text with what is behind it (WCAG 2.2, 1.4.3), how much wider than
/// its frame the page is, and everything that it has loaded.
const LOOK: &str = r#"<!doctype html><link rel="icon" href="data:,"><body><script>
const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const colors = text => [...text.matchAll(/rgba?\(([^)]*)\)/g)].map(found => {
  const [r, g, b, a = 1] = found[1].split(",").map(Number);
  return [r, g, b, a];
});
const over = (top, ground) => top.slice(0, 3).map((c, i) => c * top[3] + ground[i] * (1 - top[3]));
// Every color that may be behind an element: a gradient has several.
const grounds = (view, element) => {
  if (!element) return [view.matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255]];
  const style = view.getComputedStyle(element);
  const own = style.backgroundImage === "none" ? colors(style.backgroundColor) : colors(style.backgroundImage);
  if (own.every(color => color[3] === 1)) return own;
  return grounds(view, element.parentElement).flatMap(ground => own.map(color => over(color, ground)));
};
const look = frame => {
  const view = frame.contentWindow, page = frame.contentDocument, root = page.documentElement;
  let least = 99, which = "", texts = 0;
  const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), element = walk.currentNode.parentElement;
    if (!text) continue;
    texts++;
    for (const ground of grounds(view, element)) {
      const ink = over(colors(view.getComputedStyle(element).color)[0], ground);
      const found = contrast(ink, ground);
      if (found < least) [least, which] = [found, text];
    }
  }
  const loaded = view.performance.getEntriesByType("resource").map(one => one.name);
  const ground = luminance(grounds(view, page.body)[0]);
  return { width: view.innerWidth, over: root.scrollWidth - root.clientWidth, least, which, texts, ground,
           loaded: loaded.filter(name => !name.startsWith("data:")) };
};
const widths = [360, 1200], results = [];
const next = () => {
  const width = widths.shift();
  if (!width) {
    const result = document.createElement("pre");
    result.textContent = "FOUND" + JSON.stringify(results) + "END";
    return document.body.append(result);
  }
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 600px; border: 0`;
  frame.onload = () => { results.push(look(frame)); frame.remove(); next(); };
  frame.src = "/page.html";
  document.body.append(frame);
};
next();
</script>"#;

/// The page that the binary serves where it finds no configuration. Its address is fixed, so it
/// gets a network of its own.
fn page() -> String {
    let script = "ip link set lo up; cd \"$1\" || exit 1; \"$2\" >&2 & pid=$!; \
                  curl -sS --retry 100 --retry-delay 0 --retry-max-time 8 --retry-connrefused \
                  http://127.0.0.1:8080/; kill $pid; wait $pid";
    let dir = TempDir::new().expect("a directory");
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(forebay_tests::server::binary())
        .output()
        .expect("unshare, of the Debian package util-linux");
    let page = String::from_utf8(output.stdout).expect("a text");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(page.contains("</html>"), "{page}\n{said}");
    page
}

#[test]
fn it_can_be_read_in_light_and_in_dark_and_on_a_telephone() {
    let mut server = Server::builder(r#"site { "*", access_log "log", files "www" }"#)
        .file("www/page.html", page())
        .file("www/look.html", LOOK)
        .start();
    for is_dark in [true, false] {
        let output = Browser::new(is_dark)
            .command
            .args(["--enable-logging=stderr", "--v=0", "--window-size=1300,700"])
            .args(["--virtual-time-budget=10000", "--dump-dom"])
            .arg(format!("http://{}/look.html", server.addr()))
            .output()
            .expect("chromium, of the Debian package chromium");
        let dom = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        let found = dom.split("<pre>FOUND").nth(1);
        let found = found.and_then(|rest| rest.split("END</pre>").next());
        let found = found.unwrap_or_else(|| panic!("{dom}\n{said}"));
        let found = found.replace("&lt;", "<").replace("&gt;", ">");
        let found = found.replace("&amp;", "&");
        let views: Vec<serde_json::Value> = serde_json::from_str(&found).expect("JSON");
        let widths: Vec<u64> = views.iter().filter_map(|v| v["width"].as_u64()).collect();
        assert_eq!(widths, [360, 1200]);
        for view in &views {
            let number = |name: &str| view[name].as_f64().expect("a number");
            assert!(number("texts") > 20.0, "{view}");
            assert!(number("least") >= 4.5, "{view}");
            assert_eq!(view["over"], 0, "{view}");
            assert_eq!(view["loaded"], serde_json::json!([]));
            assert_eq!(number("ground") < 0.2, is_dark, "{view}");
        }
        // What a page says to its console, as of something that it could not load.
        assert!(!said.contains("CONSOLE"), "{said}");
    }
    server.signal(rustix::process::Signal::TERM);
    let asked = |line: &str| {
        let target = line.split('"').nth(1).unwrap_or_default();
        target.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    // At its end the server writes its log to the end.
    let _ = server.wait_exit(forebay_tests::wait::PATIENCE);
    let log = std::fs::read_to_string(server.dir().join("log")).expect("a log");
    let mut targets: Vec<String> = log.lines().map(asked).collect();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets, ["/look.html", "/page.html"]);
}
