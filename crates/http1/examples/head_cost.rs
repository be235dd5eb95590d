//! What parsing one request head costs: `cargo run --release -p forebay-http1 --example head_cost`.
//!
//! Prints nanoseconds per head: the least of many rounds, as the others were disturbed. Copying
//! the head into the buffer, which a real connection leaves to the kernel, is measured by itself
//! and taken off. `moved` counts how often the reused buffer was allocated anew, which should be
//! never. With a name as argument only that measurement is made, for a profiler.

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use forebay_fields::KnownSet;
use forebay_http1::{HeadParser, Limits, Method, Progress, RequestHead, ResponseHead};

const BARE: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: example.com\r\n\r\n";

const BROWSER: &[u8] = b"GET /products/shoes?size=42&colour=black HTTP/1.1\r\n\
Host: www.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/124.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Referer: https://www.example.com/products?size=42\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=4f2a9c01b7d84e3f; theme=dark; consent=yes; _ga=GA1.1.1234567890.1700000000\r\n\
\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: text/html\r\n\
Content-Length: 1024\r\n\
Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Connection: keep-alive\r\n\
ETag: \"2ebb8a91-400\"\r\n\
Accept-Ranges: bytes\r\n\
\r\n";

const ROUNDS: usize = 60;
const HEADS: usize = 20_000;

/// The least time per head over all rounds, in ns.
fn least(mut one: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..HEADS {
            one();
        }
        least = least.min(start.elapsed().as_secs_f64());
    }
    least * 1e9 / 20_000.0
}

/// Fills `buf` as a connection would: its room is used again once the last head let go of it.
fn receive(buf: &mut BytesMut, bytes: &[u8], place: &mut (usize, *const u8)) {
    buf.reserve(4096);
    if buf.as_ptr() != place.1 {
        *place = (place.0 + 1, buf.as_ptr());
    }
    buf.extend_from_slice(bytes);
}

fn requests(name: &str, bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = RequestHead::new();
    let mut buf = BytesMut::with_capacity(4096);
    let mut place = (0, std::ptr::null());
    let copy = least(|| {
        receive(&mut buf, black_box(bytes), &mut place);
        drop(black_box(buf.split()));
    });
    place.0 = 0;
    let all = least(|| {
        head.clear();
        receive(&mut buf, black_box(bytes), &mut place);
        let parsed = HeadParser::new().request(&mut buf, &limits, &mut head);
        assert_eq!(parsed, Ok(Progress::Complete));
        black_box(&head);
    });
    let mut out = Vec::with_capacity(4096);
    let forward = least(|| {
        out.clear();
        head.fields.write_without(&mut out, KnownSet::HOP_BY_HOP);
        black_box(&out);
    });
    println!(
        "{name:<10} {:>4} bytes {:>3} fields  parse {:>6.1} ns  (copying in {copy:.1} ns)  \
         write fields {forward:>5.1} ns  moved {}",
        bytes.len(),
        head.fields.len(),
        all - copy,
        place.0,
    );
}

fn responses(name: &str, bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = ResponseHead::new();
    let mut buf = BytesMut::with_capacity(4096);
    let mut place = (0, std::ptr::null());
    let copy = least(|| {
        receive(&mut buf, black_box(bytes), &mut place);
        drop(black_box(buf.split()));
    });
    place.0 = 0;
    let all = least(|| {
        head.clear();
        receive(&mut buf, black_box(bytes), &mut place);
        let parsed = HeadParser::new().response(&mut buf, &limits, &Method::Get, &mut head);
        assert_eq!(parsed, Ok(Progress::Complete));
        black_box(&head);
    });
    println!(
        "{name:<10} {:>4} bytes {:>3} fields  parse {:>6.1} ns  (copying in {copy:.1} ns)  moved {}",
        bytes.len(),
        head.fields.len(),
        all - copy,
        place.0,
    );
}

fn httparse_alone(name: &str, bytes: &[u8]) {
    let ns = least(|| {
        let mut room = [const { std::mem::MaybeUninit::uninit() }; 100];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(black_box(bytes), &mut room);
        assert!(parsed.is_ok());
        black_box(&request);
    });
    println!(
        "{name:<10} {:>4} bytes             httparse alone {ns:.1} ns",
        bytes.len()
    );
}

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("bare") {
        requests("bare", BARE);
    }
    if wanted("browser") {
        requests("browser", BROWSER);
    }
    if wanted("response") {
        responses("response", RESPONSE);
    }
    if wanted("httparse") {
        httparse_alone("bare", BARE);
        httparse_alone("browser", BROWSER);
    }
}
