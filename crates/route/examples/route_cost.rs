//! What normalising a path, finding a host and finding a route cost. Run it with `--release`.

use std::hint::black_box;
use std::time::Instant;

use forebay_route::{HostPattern, HostTable, Pattern, RouteSet, normalize};

fn main() {
    paths();
    hosts();
    routes();
}

fn paths() {
    println!("ns to normalise a path");
    for path in [
        "/",
        "/index.html",
        "/assets/img/logo-0123456789.png",
        "/api/v1/users/0123456789/orders/0123456789/items/0123456789/history",
        "/.well-known/acme-challenge/abc",
        "/caf%C3%A9/menu%20of%20today.html",
        "/a/b/../c/./d%2ehtml",
    ] {
        let ns = least(&[path.as_bytes()], |path| normalize(path).is_ok());
        println!("  {:>4} bytes {ns:>7.1}  {path}", path.len());
    }
}

fn hosts() {
    println!("ns to find a host, drawn at random");
    for count in [1, 100, 10_000] {
        let mut table = HostTable::new();
        let mut names = Vec::new();
        for number in 0..count {
            let wildcard = number % 10 == 9;
            let name = match wildcard {
                true => format!("*.customer{number}.example.net"),
                false => format!("www.site{number}.example.com"),
            };
            table
                .insert(HostPattern::parse(&name).expect("a name"), number)
                .expect("new");
            names.push(name.replace('*', "shop"));
        }
        let exact: Vec<_> = pick(&names, |name| name.starts_with("www"));
        let below: Vec<_> = pick(&names, |name| name.starts_with("shop"));
        let unknown: Vec<_> = names.iter().map(|name| format!("x{name}")).collect();
        let unknown = pick(&unknown, |_| true);
        let find = |host: &&[u8]| table.get(host).is_some();
        println!(
            "  {count:>6} names: exact {:.1}, wildcard {:.1}, unknown {:.1}",
            least(&exact, find),
            least(&below, find),
            least(&unknown, find),
        );
    }
}

/// A pattern and a path that it matches, by number.
type Kind<'a> = &'a dyn Fn(usize) -> (String, String);

fn routes() {
    println!("ns to find the first route, drawn at random");
    for count in [1, 10, 100, 1_000, 10_000] {
        let kinds: [(&str, Kind); 5] = [
            ("exact", &|n| (format!("/page/{n}"), format!("/page/{n}"))),
            ("below", &|n| {
                (format!("/app{n}/*"), format!("/app{n}/assets/logo.png"))
            }),
            ("param", &|n| {
                (format!("/u{n}/:id"), format!("/u{n}/0123456789"))
            }),
            ("suffix", &|n| {
                (format!("*.x{n}"), format!("/some/where/file.x{n}"))
            }),
            ("mixed", &|n| match n % 4 {
                0 => (format!("/page/{n}"), format!("/page/{n}")),
                1 => (format!("/app{n}/*"), format!("/app{n}/assets/logo.png")),
                2 => (format!("/u{n}/:id"), format!("/u{n}/0123456789")),
                _ => (format!("/lib{n}/*.php"), format!("/lib{n}/a/index.php")),
            }),
        ];
        print!("  {count:>6} routes:");
        for (name, kind) in kinds {
            let (patterns, paths): (Vec<_>, Vec<_>) = (0..count).map(kind).unzip();
            let parse = |text: &String| [Pattern::parse(text).expect("a pattern")];
            let set = RouteSet::new(patterns.iter().map(parse)).expect("not too many");
            let paths = pick(&paths, |_| true);
            print!(
                " {name} {:.1},",
                least(&paths, |path| set.first(path).is_some())
            );
        }
        println!();
    }
}

/// Up to 4,096 of them in a random order.
fn pick(names: &[String], wanted: impl Fn(&str) -> bool) -> Vec<&[u8]> {
    let names: Vec<_> = names
        .iter()
        .filter(|name| wanted(name))
        .map(String::as_bytes)
        .collect();
    let mut random = 0x5eed_usize;
    let next = |random: &mut usize| {
        *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & 0xffff_ffff;
        *random >> 8
    };
    match names.len() {
        0 => vec![b"none.example"],
        len => (0..4_096).map(|_| names[next(&mut random) % len]).collect(),
    }
}

/// The least of nine rounds, in nanoseconds for one call.
fn least<T, R>(inputs: &[T], call: impl Fn(&T) -> R) -> f64 {
    let rounds = 40_000 / inputs.len() + 1;
    let calls = f64::from(u32::try_from(rounds * inputs.len()).unwrap_or(u32::MAX));
    let round = || {
        let start = Instant::now();
        for _ in 0..rounds {
            for input in inputs {
                black_box(call(black_box(input)));
            }
        }
        start.elapsed().as_secs_f64() * 1e9 / calls
    };
    (0..9).map(|_| round()).fold(f64::INFINITY, f64::min)
}
