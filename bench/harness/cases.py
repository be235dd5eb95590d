"""The cases: what is asked, of whom, and which rival the ratios refer to."""

import random
from dataclasses import dataclass

from . import applications, caching, php, runners
from .model import Result
from .procs import BenchError
from .runners import SIZES, Contestant, Load
from .tools import HOST, request

FILE_SERVERS = ["forebay", "nginx", "nginx-default", "haproxy", "h2o", "lighttpd", "caddy", "floor"]
PROXIES = ["forebay", "nginx", "nginx-default", "haproxy", "h2o", "lighttpd", "caddy"]
SPLICING_PROXIES = PROXIES[:4] + ["haproxy-splice"] + PROXIES[4:]
CACHES = ["forebay", "nginx", "haproxy", "varnish", "floor"]
CACHE_RIVAL = {"1k": "nginx", "64k": "haproxy", "1m": "varnish"}
ZIPF = 0.9
STATIC_RIVAL = {"1k": "nginx", "64k": "nginx", "1m": "lighttpd"}
PROXY_RIVAL = {"1k": "nginx", "64k": "haproxy", "1m": "haproxy"}
SIZE_WORDS = {"1k": "1 KiB", "64k": "64 KiB", "1m": "1 MiB"}
PIPELINE = 16
TEXT = "x" * 1000


@dataclass
class Case:
    """A named measurement."""

    name: str
    title: str
    unit: str
    rival: str
    servers: list            # that take part unless the command line chooses
    run: object              # (bench, result, servers) → result
    long: bool = False       # only when asked for

    def measure(self, bench, chosen):
        taking_part = [name for name in self.servers if not chosen or name in chosen]
        result = Result(self.name, self.title, self.unit, self.rival)
        return self.run(bench, result, taking_part)


def _contestants(names, mode):
    return [Contestant(name, name, mode) for name in names]


def _static(size, *, browser=False, many=False, depth=1, per_request=False):
    def run(bench, result, names):
        paths = bench.files(size, bench.options.files if many else 1)
        requests = [request(path, browser=browser, close=per_request) for path in paths]
        loads = Load(requests, SIZES[size], paths[0], depth, per_request)
        contestants = _contestants(names, "static")
        for contestant in contestants:
            # Half as much again, for heads and for what does not fit side by side.
            contestant.cache_mb = min(4095, max(64, len(paths) * SIZES[size] * 3 // 2 >> 20))
        return runners.cpu(bench, result, contestants, loads, max_age=3600)
    return run


def _proxy(size, *, browser=False, per_request=False):
    def run(bench, result, names):
        path = f"/{size}.bin"
        requests = [request(path, browser=browser, close=per_request)]
        loads = Load(requests, SIZES[size], path, 1, per_request)
        return runners.cpu(bench, result, _contestants(names, "proxy"), loads)
    return run


def _hits(size, *, browser=False, count=1):
    """Hits of a cache that holds everything in memory."""
    def run(bench, result, names):
        number = min(count, 500) if bench.options.quick else count
        paths = [f"/{i:05}/{size}.bin" for i in range(number)]
        requests = [request(path, browser=browser) for path in paths]
        loads = Load(requests, SIZES[size], paths[0], fill=number > 1, hits=True,
                     zipf=ZIPF if number > 1 else 0)
        contestants = _contestants(names, "cache")
        for contestant in contestants:
            contestant.cork = size == "1k"
            # Half as much again, for heads and for what does not fit side by side.
            contestant.cache_mb = max(64, number * (SIZES[size] + 1024) * 3 // 2 >> 20)
            # With many there is a disk behind the memory, as one would have it.
            contestant.disk_mb = 4096 if number > 1 else 0
        return runners.cpu(bench, result, contestants, loads, max_age=86400)
    return run


def _on_disk(measure, size, cache_mb):
    """Cases of the cache's disk; the memory is too small to help."""
    def run(bench, result, names):
        contestants = _contestants(names, "cache")
        for contestant in contestants:
            contestant.cork = size == "1k"
            contestant.cache_mb = cache_mb
            contestant.disk_mb = 4096
        return measure(bench, result, contestants, size)
    return run


def _purge_rules(bench, result, names):
    """Rules stay in force while a disk may hold what is older than they are."""
    count, together = (5_000 if bench.options.quick else 100_000), 250
    if "forebay" not in names:
        return result
    site = ('site { "*", route "/metrics" { metrics }, cache { purge = client "127.0.0.1" }, '
            'ORIGIN }')
    without, ruled = (Contestant(label, "forebay", "cache", sites=site, disk_mb=256)
                      for label in ("no rules", "100,000 rules"))
    path = "/1k.bin"

    def purge(first):
        tags = " ".join(f"gone-{i}" for i in range(first, first + together))
        asked = request("/").replace(b"GET", b"PURGE", 1)
        return asked.replace(b"\r\n\r\n", f"\r\nxkey: {tags}\r\n\r\n".encode())

    # Something older than the rules has to be there for them to be about.
    purges = [request(path), *(purge(first) for first in range(0, count, together))]
    loads = Load([request(path, browser=True)], SIZES["1k"], path, hits=True,
                 prepare={ruled.label: purges}, metric="forebay_cache_store_purge_rules")
    return runners.cpu(bench, result, [without, ruled], loads, max_age=86400)


def _idle(browser):
    def run(bench, result, names):
        return runners.idle_memory(bench, result, _contestants(names, "static"), browser=browser)
    return run


def _request_memory(bench, result, names):
    return runners.request_memory(bench, result, _contestants(names, "proxy"))


def _allocations(mode):
    def run(bench, result, names):
        path = bench.files("1k")[0]
        loads = Load([request(path)], SIZES["1k"], path)
        return runners.allocations(bench, result, _contestants(names, mode), loads)
    return run


def many_sites(count):
    """Sites with an exact name each, and every tenth with a wildcard beside it."""
    return f"""\
for i = 1, {count} do
  local hosts = {{ "www" .. i .. ".example.com" }}
  if i % 10 == 0 then hosts[2] = "*.customer" .. i .. ".example.net" end
  site {{ hosts, respond(200, "{TEXT}") }}
end"""


def many_routes(count):
    """Prefix routes, every tenth with a parameter, in one site."""
    return f"""\
local routes = {{}}
for i = 1, {count} do
  local pattern = i % 10 == 0 and "/part" .. i .. "/:id/view" or "/part" .. i .. "/*"
  routes[i] = route(pattern) {{ respond(200, "{TEXT}") }}
end
site {{ "*", routes }}"""


def _sites(bench, result, names):
    count = 10_000
    random.seed(1)
    hosts = []
    for _ in range(20_000):
        i = random.randint(1, count)
        wild = i % 10 == 0 and random.random() < 0.5
        hosts.append(f"shop{i % 97}.customer{i}.example.net" if wild else f"www{i}.example.com")
    requests = [request("/", host=host) for host in hosts]
    one = Contestant("one site", "forebay", sites=f'site {{ "*", respond(200, "{TEXT}") }}')
    many = Contestant("10,000 sites", "forebay", sites=many_sites(count))
    return _forebay_pair(bench, result, names, one, many, requests, hosts[0])


def _routes(bench, result, names):
    count = 1000
    random.seed(1)
    paths = []
    for _ in range(20_000):
        i = random.randint(1, count)
        paths.append(f"/part{i}/{random.randint(1, 999)}/view")
    requests = [request(path) for path in paths]
    one = Contestant(
        "one route", "forebay", sites=f'site {{ "*", route "/*" {{ respond(200, "{TEXT}") }} }}')
    many = Contestant("1,000 routes", "forebay", sites=many_routes(count))
    return _forebay_pair(bench, result, names, one, many, requests, None, paths[0])


def _forebay_pair(bench, result, names, one, many, requests, host, path="/"):
    if "forebay" not in names:
        return result
    seconds = runners.check_seconds(bench, many)
    loads = Load(requests, len(TEXT), path, host=host or HOST)
    result = runners.cpu(bench, result, [one, many], loads)
    if seconds is not None:
        result.figures[f"forebay check of {many.label}, s"] = seconds
    return result


def _words(count):
    """Text that compresses as a page does: words of a language that nobody speaks."""
    draw = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(draw.choices(letters, range(len(letters), 0, -1), k=draw.randint(2, 9)))
             for _ in range(1500)]
    page, size = ["<!doctype html><title>page</title>"], 0
    while size < count:
        text = " ".join(draw.choices(words, range(len(words), 0, -1), k=draw.randint(20, 60)))
        page.append(f'<p class="{draw.choice(words)}">{text}</p>')
        size += len(page[-1]) + 1
    return "\n".join(page)[:count]


def _gzip(bench, result, names):
    (bench.root / "page.html").write_text(_words(SIZES["64k"]))
    asked = request("/page.html").replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n")
    contestants = _contestants(names, "static")
    for contestant in contestants:
        contestant.gzip = True
    # The first look asks for no coding.
    loads = Load([asked], SIZES["64k"], "/page.html", wrk=True)
    return runners.cpu(bench, result, contestants, loads)


def _access_log(bench, result, names):
    path = bench.files("1k")[0]
    site = f'files "{bench.root}"'
    log = bench.work / "access.log"
    off = Contestant("no log", "forebay", sites=f'site {{ "*", {site} }}')
    on = Contestant("log and metrics", "forebay", sites=(
        f'site {{ "*", access_log "{log}", route "/metrics" {{ metrics }}, {site} }}'))
    if "forebay" not in names:
        return result
    loads = Load([request(path, browser=True)], SIZES["1k"], path)
    return runners.cpu(bench, result, [off, on], loads)


def _limit(bench, result, names):
    count = 20_000 if bench.options.quick else 1_000_000
    if "forebay" not in names:
        return result
    requests = [request("/").replace(b"\r\n\r\n", f"\r\nX-Client: client-{i}\r\n\r\n".encode())
                for i in range(count)]
    answer = f'respond(200, "{TEXT}")'
    limit = 'limit { rate = "100/h", by = "$headers.x_client" }'
    off = Contestant("no limit", "forebay", sites=f'site {{ "*", {answer} }}')
    on = Contestant("limit", "forebay", sites=f'site {{ "*", {limit}, {answer} }}')
    loads = Load(requests, len(TEXT), "/", grows=True)
    result = runners.cpu(bench, result, [off, on], loads)
    rows = result.row("no limit"), result.row("limit")
    if all(rows):
        result.figures["limit: added to a request, µs"] = rows[1].least - rows[0].least
        grown = [result.figures.get(f"{row.label}: growth of memory, MiB") for row in rows]
        if None not in grown:
            result.figures["limit: memory more than without, MiB"] = grown[1] - grown[0]
    result.notes.append(f"{count} clients, told apart by a field, drawn at random.")
    return result


def _php(bench, result, names):
    process, socket = php.start(bench)
    try:
        contestants = _contestants(names, "php")
        for contestant in contestants:
            contestant.php = str(socket)
        loads = Load([request("/hello.php", browser=True)], len("hello"), "/hello.php",
                     connections=4)
        return runners.cpu(bench, result, contestants, loads)
    finally:
        bench.keeper.stop(process)


def _php_hits(browser):
    """Hits of a cache in front of php-fpm, whose script notes each time that it runs."""
    def run(bench, result, names):
        noted = bench.work / "asked"
        noted.touch()
        noted.chmod(0o666)
        process, socket = php.start(bench)
        (bench.root / "5.php").write_text(
            f'<?php file_put_contents("{noted}", "x", FILE_APPEND); '
            'header("Cache-Control: max-age=86400"); header("Content-Length: 5"); echo "hello";')
        try:
            contestants = _contestants(names, "cache")
            for contestant in contestants:
                contestant.php = str(socket)
            loads = Load([request("/5.php", browser=browser)], len("hello"), "/5.php", hits=True,
                         asked=lambda: noted.stat().st_size)
            result = runners.cpu(bench, result, contestants, loads)
            if not noted.stat().st_size:
                raise BenchError("no server has asked php-fpm, which tells of nothing")
            return result
        finally:
            bench.keeper.stop(process)
    return run


def _workers(mode):
    def run(bench, result, names):
        path = bench.files("1k")[0]
        cores = sorted(bench.cores.all)
        if len(cores) < 2:
            result.notes.append("left out: this machine has one core")
            return result
        # With no cores to spare, each of the two carries a load beside the server, for one
        # worker as for two: the caches and the wake-ups are then the same.
        load_cores = cores[2:4] if len(cores) >= 4 else cores[:2]
        contestants = []
        for name in names:
            for workers in (1, 2):
                contestants.append(Contestant(
                    f"{name}, {workers} worker{'s' * (workers - 1)}", name, mode, workers,
                    cores=set(cores[:workers])))
        loads = Load([request(path)], SIZES["1k"], path, load_cores=load_cores,
                     hits=mode == "cache")
        result = runners.cpu(bench, result, contestants, loads, max_age=86400)
        for name in names:
            alone, both = (result.row(f"{name}, 1 worker"), result.row(f"{name}, 2 workers"))
            if alone and both:
                result.figures[f"{name}: two workers, times one"] = both.least / alone.least
        return result
    return run


def _latency(bench, result, names):
    return runners.latency(bench, result, _contestants(names, "proxy"))


def _slow(mode):
    def run(bench, result, names):
        return runners.slow_readers(bench, result, _contestants(names, mode))
    return run


def _table():
    us = "µs/request"
    for size, words in SIZE_WORDS.items():
        for suffix, about, options in (
                ("", "one hot file", {}),
                ("-browser", "one hot file, a browser's head", {"browser": True}),
                ("-files", "over many files", {"many": True})):
            yield Case(f"static-{size}{suffix}", f"static {words}, {about}", us,
                       STATIC_RIVAL[size], FILE_SERVERS, _static(size, **options))
    for suffix, about, browser in (("", "", False), ("-browser", ", a browser's head", True)):
        yield Case(f"pipelined-1k{suffix}", f"static 1 KiB, pipelined {PIPELINE} deep{about}", us,
                   "nginx", FILE_SERVERS, _static("1k", browser=browser, depth=PIPELINE))
    for size, words in SIZE_WORDS.items():
        for suffix, about, browser in (("", "", False), ("-browser", ", a browser's head", True)):
            yield Case(f"proxy-{size}{suffix}", f"proxy {words}{about}", us, PROXY_RIVAL[size],
                       PROXIES if size == "1k" else SPLICING_PROXIES,
                       _proxy(size, browser=browser))
    for size, words in SIZE_WORDS.items():
        # 10,000 bodies of 1 MiB are more than the memory of this machine beside the rivals' own.
        count = 1_000 if size == "1m" else 10_000
        for suffix, about, options in (
                ("", "one hot object", {}),
                ("-browser", "one hot object, a browser's head", {"browser": True}),
                ("-zipf", f"{count:,} URLs by Zipf {ZIPF}, a browser's head",
                 {"browser": True, "count": count})):
            yield Case(f"cache-{size}{suffix}", f"hit in memory {words}, {about}", us,
                       CACHE_RIVAL[size], CACHES, _hits(size, **options))
    yield Case("cache-miss-1k", "misses 1 KiB, all distinct, kept on disk", us, "nginx",
               ["forebay", "nginx"], _on_disk(caching.misses, "1k", 256))
    yield Case("cache-disk-64k", "hit on disk 64 KiB, not in memory, a browser's head", us, "nginx",
               ["forebay", "nginx", "nginx-aio"], _on_disk(caching.from_disk, "64k", 4))
    yield Case("cache-rules", "hit in memory 1 KiB, a browser's head: 100,000 purge rules in force",
               us, "no rules", ["forebay"], _purge_rules)
    yield Case("connect-static-1k", "static 1 KiB, a connection per request", us, "nginx",
               FILE_SERVERS, _static("1k", per_request=True))
    yield Case("connect-proxy-1k", "proxy 1 KiB, a connection per request", us, "nginx", PROXIES,
               _proxy("1k", per_request=True))
    for suffix, about, browser in (("", "", False), ("-browser", ", a browser's head", True)):
        yield Case(f"idle{suffix}", f"idle connection after one request{about}: user memory",
                   "bytes", "nginx", FILE_SERVERS[:-1], _idle(browser))
    yield Case("request-memory", "proxied request under way: user memory", "bytes", "nginx",
               PROXIES, _request_memory)
    yield Case("allocs-static-1k", "static 1 KiB: allocations", "calls/request", "nginx",
               FILE_SERVERS[:-1], _allocations("static"))
    yield Case("allocs-proxy-1k", "proxy 1 KiB: allocations", "calls/request", "nginx",
               PROXIES, _allocations("proxy"))
    yield Case("sites-10000", "10,000 sites, hosts drawn at random", us, "one site", ["forebay"],
               _sites)
    yield Case("routes-1000", "1,000 routes in one site, drawn at random", us, "one route",
               ["forebay"], _routes)
    yield Case("gzip-64k", "64 KiB of HTML, gzip on the fly at level 4", us, "nginx",
               ["forebay", "nginx"], _gzip)
    yield Case("php-hello", "php-fpm says hello, a browser's head, 4 kept connections", us,
               "nginx", ["forebay", "nginx"], _php)
    for suffix, about, browser in (("", "", False), ("-browser", ", a browser's head", True)):
        yield Case(f"cache-php{suffix}", f"hit in memory, 5 bytes of php-fpm's{about}", us, "nginx",
                   ["forebay", "nginx", "floor"], _php_hits(browser))
    for suffix, connections in (("", 4), ("-16", 16), ("-64", 64)):
        yield Case(f"fastcgi-app{suffix}", "an application behind nginx says hello, a browser's "
                   f"head, {connections} connections: its CPU", us, "php-fpm", ["forebay"],
                   applications.behind(connections))
    yield Case("cgi-processes", "PHP says hello: own processes against CGI", us, "cgi", ["forebay"],
               applications.against_cgi)
    yield Case("processes-hello", "a trivial program by own processes", us, "", ["forebay"],
               applications.trivial)
    yield Case("cgi-hello", "a trivial program by CGI", us, "vfork", ["forebay"],
               applications.by_cgi)
    yield Case("access-log", "static 1 KiB, a browser's head: access log to a file, and metrics",
               us, "no log", ["forebay"], _access_log)
    yield Case("limit-clients", "a limit by client among a million clients", us, "no limit",
               ["forebay"], _limit)
    yield Case("workers-static-1k", "static 1 KiB: two workers on two cores", us,
               "forebay, 1 worker", ["forebay", "nginx"], _workers("static"))
    yield Case("workers-proxy-1k", "proxy 1 KiB: two workers on two cores", us,
               "forebay, 1 worker", ["forebay", "nginx"], _workers("proxy"))
    yield Case("workers-cache-1k", "hit in memory 1 KiB, one hot object: two workers on two cores",
               us, "forebay, 1 worker", ["forebay", "nginx"], _workers("cache"))
    yield Case("slow-static", "a fast client's p99 beside slow readers of files", "ms", "nginx",
               ["forebay", "nginx"], _slow("static"))
    yield Case("slow-proxy", "a fast client's p99 beside slow readers of a proxied body", "ms",
               "nginx", ["forebay", "nginx"], _slow("proxy"))
    yield Case("latency", "proxy before an origin that takes 10 ms: mean latency", "ms", "direct",
               ["forebay", "nginx", "haproxy"], _latency, long=True)


CASES = list(_table())
