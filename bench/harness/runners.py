"""How the cases measure: each function runs one kind of case and returns its result."""

import http.client
import re
import subprocess
import time
from dataclasses import dataclass, field

from . import allocs, servers
from .model import Result, Row
from .procs import BenchError, busy_seconds, cpu_seconds, pss_bytes, settled_pss
from .setup import Setup, forebay_config
from .tools import HOST, merge, quantile, request, wait_listening, wait_ready

WARM_SECONDS = 0.25
SETTLE_SECONDS = 15
WRITE_SECONDS = 3   # for what is still to be written to disks before hits are measured
SIZES = {"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20, "10m": 10 << 20}


@dataclass
class Contestant:
    """A server in a case, set up in one way."""

    label: str
    server: str
    mode: str = "static"
    workers: int = 1
    cache_mb: int = 64           # of memory, for what it caches
    disk_mb: int = 0             # of disk, likewise
    cores: set = None            # in place of the usual ones
    sites: str = ""              # Forebay's sites in place of the usual ones
    gzip: bool = False
    cork: bool = True            # nginx's cache joins head and body
    php: str = ""                # the socket of php-fpm


@dataclass
class Running:
    """A contestant that has been started."""

    contestant: Contestant
    process: object
    port: int
    row: Row
    setup: Setup
    broken: bool = False


class Bench:
    """What every case needs: the tools, the programs, the files and the options."""

    def __init__(self, keeper, tools, binaries, cores, options, work, say):
        self.keeper = keeper
        self.tools = tools
        self.binaries = binaries
        self.cores = cores
        self.options = options
        self.work = work
        self.say = say
        self.root = work / "root"
        self.root.mkdir()
        self.started = 0

    def files(self, size, count=1):
        """Makes files of a size, read once so that they are in memory; returns their paths."""
        if count == 1:
            names = [f"{size}.bin"]
        else:
            (self.root / "many").mkdir(exist_ok=True)
            names = [f"many/{size}-{i:04}.bin" for i in range(count)]
        for name in names:
            path = self.root / name
            if not path.exists():
                path.write_bytes(b"x" * SIZES[size])
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass
        return [f"/{name}" for name in names]

    def start(self, contestant, origin_port):
        """Starts a contestant and waits until it listens."""
        c = contestant
        port = self.tools.ports.take()
        self.started += 1
        setup = Setup(c.mode, port, self.work / f"{self.started:03}-{c.server}", self.root,
                      origin_port, c.workers, c.cache_mb, c.disk_mb, gzip=c.gzip, cork=c.cork, php=c.php)
        if c.mode == "cache":
            setup.sites = c.sites
        elif c.sites:
            setup.config = forebay_config(setup, c.sites)
        running = Running(c, None, port, Row(c.label), setup)
        self.restart(running)
        return running

    def restart(self, one):
        """Starts a server that does not run, on all that it has left behind."""
        one.process = servers.start(self.keeper, one.contestant.server, one.setup, self.binaries,
                                    one.contestant.cores or self.cores.server)
        wait_listening(one.process, one.port)

    def start_all(self, contestants, origin_port):
        """Starts those that are here; one that does not start is named and left out."""
        running = []
        for contestant in contestants:
            if contestant.server not in self.binaries:
                continue
            try:
                running.append(self.start(contestant, origin_port))
            except BenchError as error:
                self.say(f"  {contestant.label}: {error}")
        return running

    def stop(self, running):
        for one in running:
            self.keeper.stop(one.process)


def look(running, path, length, host=HOST):
    """Asks once and says what is wrong with the answer, or returns its body."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"GET {path}: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200 or (length is not None and len(body) != length):
        raise BenchError(f"GET {path}: status {response.status}, {len(body)} bytes")
    return body


def leave_out_wrong(bench, running, path, length, host=HOST):
    """Stops the contestants that do not answer rightly, naming them; returns the others."""
    good = []
    for one in running:
        try:
            look(one, path, length, host)
            good.append(one)
        except BenchError as error:
            bench.say(f"  {one.row.label} is left out: {error}")
            bench.keeper.stop(one.process)
    return good


def in_turns(bench, running, rounds):
    """Yields every contestant once a round, each round beginning with another one."""
    for number in range(rounds):
        for position in range(len(running)):
            one = running[(position + number) % len(running)]
            if not one.broken:
                yield one


@dataclass
class Load:
    """What is asked of every contestant of a CPU case."""

    requests: list
    length: int                  # of the body
    path: str                    # that a first look asks for
    depth: int = 1
    per_request: bool = False    # a connection per request
    host: str = HOST             # that a first look asks
    load_cores: list = field(default_factory=list)  # one load on each, in place of the usual one
    wrk: bool = False            # by wrk: the answers are chunked, of no known length
    grows: bool = False          # note how much memory the whole case has cost
    fill: bool = False           # everything is asked for once before, in order
    prepare: dict = field(default_factory=dict)  # what is asked of a contestant before, by label
    hits: bool = False           # nothing may reach the origin
    asked: object = None         # how many requests have, in place of asking it
    metric: str = ""             # of Forebay's, noted at the end
    connections: int = 0         # in place of the usual number
    zipf: float = 0              # requests are drawn by Zipf's law with this exponent


def asked_of_origin(port):
    """How many requests the origin has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/answered")
        return int(connection.getresponse().read())
    finally:
        connection.close()


def ask_each(bench, one, requests, name, length=None, rate=None):
    """Asks for each of these once, in order; no more than `rate` of them a second."""
    if not requests:
        return
    file = bench.tools.requests(f"{name}-once", requests)
    report = bench.tools.load(one.port, file, 600, n=len(requests), o="0", c=16, l=length,
                              r=rate)
    one.row.blame(report)


def measure_cpu(bench, one, loads, file, seconds, count_it=True):
    """One run: notes the server's CPU time per request, and how the machine was meanwhile."""
    pids = one.process.pids()
    asked = loads.asked or (lambda: asked_of_origin(one.setup.origin_port))
    reached = asked() if loads.hits else 0
    core = min(one.contestant.cores or bench.cores.server)
    busy, used, began = busy_seconds(core), cpu_seconds(pids), time.monotonic()
    options = {"c": loads.connections or bench.options.connections, "l": loads.length}
    if loads.depth > 1:
        options["P"] = loads.depth
    if loads.per_request:
        options["k"] = True
    if loads.zipf:
        options["z"] = loads.zipf
    if loads.load_cores:
        started = [bench.tools.start_load(one.port, file, cores={c}, d=seconds, s=c + 1, **options)
                   for c in loads.load_cores]
        reports = [bench.tools.finish_load(load, seconds + 60) for load in started]
    else:
        load = bench.tools.by_wrk if loads.wrk else bench.tools.load
        reports = [load(one.port, file, seconds, **options)]
    elapsed = time.monotonic() - began
    used = cpu_seconds(pids) - used
    busy = busy_seconds(core) - busy
    one.process.check()
    answers = sum(report["answers"] for report in reports)
    if not answers:
        raise BenchError(f"no request was answered: {reports[0]['errors']}")
    if not count_it:
        return
    row = one.row
    row.values.append(used / answers * 1e6)
    row.blame(*reports)
    if loads.hits:
        row.blame({"errors": {"missed": asked() - reached}})
    window = max(report["seconds"] for report in reports)
    row.extra.setdefault("rate", []).append(answers / window)
    row.extra.setdefault("busy", []).append(used / window)
    # What else ran on the server's core: it cools its caches, so many per cent are a warning.
    row.extra.setdefault("foreign", []).append(max(0.0, busy - used) / elapsed)


def cpu(bench, result, contestants, loads, *, max_age=None):
    """CPU time of the server per request, in interleaved rounds."""
    origin_process, origin_port = bench.tools.origin(max_age=max_age)
    running = bench.start_all(contestants, origin_port)
    try:
        running = leave_out_wrong(bench, running, loads.path, loads.length, loads.host)
        file = bench.tools.requests(result.name, loads.requests)
        for one in running:
            ask_each(bench, one, loads.prepare.get(one.row.label, []), result.name)
            ask_each(bench, one, loads.requests if loads.fill else [], result.name, loads.length)
        if any(one.contestant.disk_mb for one in running):
            time.sleep(WRITE_SECONDS)
        before = {one.row.label: pss_bytes(one.process.pids()) for one in running}
        for one in list(running):
            try:
                measure_cpu(bench, one, loads, file, WARM_SECONDS, count_it=False)
            except BenchError as error:
                bench.say(f"  {one.row.label} is left out: {error}")
                one.broken = True
        for one in in_turns(bench, running, bench.options.rounds):
            try:
                measure_cpu(bench, one, loads, file, bench.options.seconds)
            except BenchError as error:
                bench.say(f"  {one.row.label} is left out from here: {error}")
                one.broken = True
        for one in running if loads.metric else []:
            found = re.search(rf"^{loads.metric}\b.* (\S+)$", look(one, "/metrics", None).decode(),
                              re.MULTILINE)
            result.figures[f"{one.row.label}: {loads.metric}"] = float(found[1]) if found else -1
        for one in running if loads.grows else []:
            grown = settled_pss(one.process.pids()) - before[one.row.label]
            result.figures[f"{one.row.label}: growth of memory, MiB"] = grown / 2**20
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    for one in running:
        summarise(one.row)
        result.rows.append(one.row)
    return result


def summarise(row):
    """Leaves of the further figures the one of the round with the least value."""
    if not row.values:
        return
    best = row.values.index(row.least)
    row.extra = {name: values[best] if isinstance(values, list) else values
                 for name, values in row.extra.items()}


def idle_memory(bench, result, contestants, *, browser):
    """User memory per connection that has been idle since its one request."""
    path = bench.files("1k")[0]
    file = bench.tools.requests(result.name, [request(path, browser=browser)])
    origin_process, origin_port = bench.tools.origin(max_age=3600)
    count = bench.options.idle
    running = bench.start_all(contestants, origin_port)
    try:
        for one in leave_out_wrong(bench, running, path, SIZES["1k"]):
            pids = one.process.pids()
            # What the first requests make a server set up is no cost of an idle connection.
            bench.tools.load(one.port, file, 60, n=2000, c=64, l=SIZES["1k"])
            before = settled_pss(pids)
            load = bench.tools.start_load(one.port, file, m="idle", c=count, l=SIZES["1k"])
            wait_ready(load, 60)
            after = settled_pss(pids)
            report = bench.tools.finish_load(load, 60)
            row = one.row
            row.blame(report, lost=count - report["alive"])
            row.values.append(max(0, after - before) / count)
            row.extra["before"] = before
            row.extra["after"] = after
            result.rows.append(row)
            bench.keeper.stop(one.process)
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    result.notes.append(f"{count} connections; growth of Pss, all of a server's processes.")
    return result


def request_memory(bench, result, contestants):
    """User memory of one request under way, and what a finished one leaves behind."""
    count = 200 if bench.options.quick else 1000
    many = 20_000 if bench.options.quick else 200_000
    waiting = bench.tools.requests(result.name + "-held", [request("/delay4000/1k.bin")])
    plain = bench.tools.requests(result.name, [request("/1k.bin")])
    origin_process, origin_port = bench.tools.origin()
    running = bench.start_all(contestants, origin_port)
    try:
        for one in leave_out_wrong(bench, running, "/1k.bin", SIZES["1k"]):
            pids = one.process.pids()
            bench.tools.load(one.port, plain, 60, n=many // 10, c=64, l=SIZES["1k"])
            before = settled_pss(pids)
            load = bench.tools.start_load(one.port, waiting, m="hold", c=count, l=SIZES["1k"])
            wait_ready(load, 60)
            time.sleep(1.5)
            under_way = pss_bytes(pids)
            report = bench.tools.finish_load(load, 60)
            bench.tools.load(one.port, plain, 60, n=many // 10, c=64, l=SIZES["1k"])
            early = settled_pss(pids)
            later = bench.tools.load(one.port, plain, 60, n=many, c=64, l=SIZES["1k"])
            late = settled_pss(pids)
            row = one.row
            row.blame(report, later)
            row.values.append(max(0, under_way - before) / count)
            row.extra["left per request"] = (late - early) / many
            row.extra["in all"] = late
            result.rows.append(row)
            bench.keeper.stop(one.process)
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    result.notes.append(
        f"Growth of Pss while {count} requests waited for the origin, each on a connection of its "
        f"own, sides to client and origin both; left: growth over {many} further requests.")
    return result


def allocations(bench, result, contestants, loads):
    """Calls of an allocating function per request, counted in the kernel by uprobes."""
    many = 20_000
    file = bench.tools.requests(result.name, loads.requests)
    origin_process, origin_port = bench.tools.origin()
    running = bench.start_all(contestants, origin_port)
    try:
        for one in leave_out_wrong(bench, running, loads.path, loads.length):
            bench.tools.load(one.port, file, 60, n=2000, c=64, l=loads.length)
            try:
                with allocs.Counter(one.process.pids()) as counter:
                    before = counter.read()
                    report = bench.tools.load(one.port, file, 120, n=many, c=64, l=loads.length)
                    count = counter.read() - before
            except allocs.CannotCount as error:
                result.notes.append(f"{one.row.label}: {error}")
                continue
            one.row.values.append(count / report["answers"])
            one.row.blame(report)
            result.rows.append(one.row)
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    result.notes.append("malloc, calloc, realloc and their kin, mimalloc's too; memory that a "
                        "server manages itself in pools is not seen.")
    return result


def check_seconds(bench, contestant, times=3):
    """How long `forebay check` takes for a contestant's configuration: the least of a few."""
    if "forebay" not in bench.binaries:
        return None
    setup = Setup("static", bench.tools.ports.take(), bench.work / "check", bench.root, 9)
    setup.dir.mkdir(exist_ok=True)
    setup.config = forebay_config(setup, contestant.sites)
    launch = servers.forebay(setup, bench.binaries)
    argv = [launch.argv[0], "check", launch.argv[2]]
    best = None
    for _ in range(times):
        began = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        took = time.monotonic() - began
        if done.returncode:
            raise BenchError(f"forebay check: {(done.stdout + done.stderr).strip()[-400:]}")
        best = took if best is None else min(best, took)
    return best


def latency(bench, result, contestants):
    """Mean and p99 in front of an origin that takes 10 ms, against asking it directly."""
    total = bench.options.latency_requests
    blocks = 10
    path = "/delay10/1k.bin"
    file = bench.tools.requests(result.name, [request(path)])
    origin_process, origin_port = bench.tools.origin()
    running = bench.start_all(contestants, origin_port)
    reports = {"direct": []}
    memory = {}
    try:
        running = leave_out_wrong(bench, running, path, SIZES["1k"])
        for block in range(blocks):
            if not running:
                break
            for label, port in [("direct", origin_port), *((o.row.label, o.port) for o in running)]:
                reports.setdefault(label, []).append(bench.tools.load(
                    port, file, 3600, n=total // blocks, c=100, l=SIZES["1k"]))
            for one in running:
                memory.setdefault(one.row.label, []).append(pss_bytes(one.process.pids()))
            bench.say(f"  block {block + 1} of {blocks}")
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    figures = {label: latency_figures(done) for label, done in reports.items() if done}
    for label, (mean, p50, p99) in figures.items():
        row = Row(label, [mean * 1e3], extra={"p50": p50 * 1e3, "p99": p99 * 1e3})
        row.blame(*reports[label])
        result.rows.append(row)
        if label == "direct":
            continue
        grown = memory[label][-1] - memory[label][0]
        row.extra["grown"] = grown
        result.figures[f"{label}: mean above direct, ms"] = (mean - figures["direct"][0]) * 1e3
        result.figures[f"{label}: p99 above direct, ms"] = (p99 - figures["direct"][2]) * 1e3
        result.figures[f"{label}: failed requests"] = row.failed
        result.figures[f"{label}: memory growth, MiB"] = grown / (1 << 20)
    result.notes.append(f"{total} requests each over 100 connections, in {blocks} interleaved "
                        "blocks; growth: Pss after the last block less that after the first.")
    return result


def latency_figures(reports):
    """Mean, median and 99th percentile over several load reports, in seconds."""
    histogram = merge(report["histogram"] for report in reports)
    answers = sum(report["answers"] for report in reports)
    mean = sum(report["latency_sum_ns"] for report in reports) / answers / 1e9
    return mean, quantile(histogram, 0.5), quantile(histogram, 0.99)


def settle(one):
    """Waits until the first rush is over: a thousand buffers are being filled at the beginning.

    That is, until the server uses less than half a core for a second, at most SETTLE_SECONDS.
    """
    end, calm = time.monotonic() + SETTLE_SECONDS, 0
    while calm < 4 and time.monotonic() < end:
        used = cpu_seconds(one.process.pids())
        time.sleep(0.25)
        used = cpu_seconds(one.process.pids()) - used
        calm = calm + 1 if used < 0.125 else 0


def slow_readers(bench, result, contestants):
    """A fast client's p99, alone and while a thousand others read 10 MB slowly."""
    rounds, seconds = bench.options.rounds, max(2.0, bench.options.seconds)
    bench.files("1k")
    bench.files("10m")
    quick = bench.tools.requests(result.name, [request("/1k.bin")])
    big = bench.tools.requests(result.name + "-slow", [request("/10m.bin")])
    origin_process, origin_port = bench.tools.origin()
    running = bench.start_all(contestants, origin_port)

    def fast(one):
        # Paced, and before all others on its core: its waits are the server's, not its own.
        load = bench.tools.start_load(one.port, quick, priority=True, c=1, r=1000, d=seconds,
                                      l=SIZES["1k"])
        return bench.tools.finish_load(load, seconds + 60)

    try:
        running = leave_out_wrong(bench, running, "/1k.bin", SIZES["1k"])
        for one in running:
            fast(one)
        for one in in_turns(bench, running, rounds):
            alone = fast(one)
            load = bench.tools.start_load(one.port, big, m="slow", c=bench.options.slow, b=8192,
                                          i=250, l=SIZES["10m"])
            wait_ready(load, 60)
            settle(one)
            beside = fast(one)
            slow = bench.tools.finish_load(load, 60)
            row = one.row
            row.values.append(quantile(beside["histogram"], 0.99) * 1e3)
            row.extra.setdefault("alone", []).append(quantile(alone["histogram"], 0.99) * 1e3)
            row.blame(alone, beside, slow, lost=bench.options.slow - slow["alive"])
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    for one in running:
        row = one.row
        row.extra["alone"] = min(row.extra["alone"])
        result.rows.append(row)
        result.figures[f"{row.label}: p99 beside slow readers, times that alone"] = (
            row.least / row.extra["alone"])
        result.figures[f"{row.label}: p99 added by slow readers, ms"] = (
            row.least - row.extra["alone"])
    result.notes.append(f"{bench.options.slow} connections read 10 MiB at 32 KiB/s each; the fast "
                        "client asks 1,000 times a second for 1 KiB.")
    return result
