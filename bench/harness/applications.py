"""How the cases measure that are about applications: being one, and running them."""

import json
import os
import time

from . import php
from .model import Row
from .procs import BenchError, anonymous_kib, cpu_seconds, cpu_seconds_of_ended
from .runners import (Contestant, Load, Running, in_turns, leave_out_wrong, look, measure_cpu,
                      summarise)
from .servers import NGINX_PATHS
from .setup import Setup, open_files
from .tools import merge, quantile, request, wait_listening

WARM_SECONDS = 0.5
SOCKET_SECONDS = 10
PHP_CGI = "/usr/bin/php-cgi"


# ---- behind another server -------------------------------------------------------------------


def _wait_for(path, process):
    end = time.monotonic() + SOCKET_SECONDS
    while not path.exists():
        process.check()
        if time.monotonic() > end:
            raise BenchError(f"{process.name} does not listen on {path}")
        time.sleep(0.01)


def _as_application(bench, directory):
    """Starts Forebay as a FastCGI application with a page of its own; returns it and its socket."""
    path, config = directory / "app.sock", directory / "app.lua"
    config.write_text(f"""\
server {{ workers = 1, admin = "unix:{directory}/admin.sock", log = "error" }}
listen "unix:{path}" {{ protocol = "fastcgi", mode = "0666" }}
site {{ "*", respond(200, "hello") }}
""")
    process = bench.keeper.start("forebay", [bench.binaries["forebay"], "run", config],
                                 bench.cores.server, cwd=directory, log=directory / "app.log")
    _wait_for(path, process)
    return process, path


def _front(bench, directory, sockets):
    """Starts an nginx in front of all these applications; returns it and a port for each."""
    ports = [bench.tools.ports.take() for _ in sockets]
    blocks = "".join(f"""\
  upstream app{port} {{ server unix:{path}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      root {bench.root}; include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_pass app{port}; fastcgi_keep_conn on;
    }}
  }}
""" for port, path in zip(ports, sockets))
    config = directory / "front.conf"
    config.write_text(f"""\
worker_processes 1;
worker_rlimit_nofile {open_files()};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
daemon off;
events {{ worker_connections 1000; multi_accept on; }}
http {{
{NGINX_PATHS}
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
{blocks}}}
""")
    argv = [bench.binaries["nginx"], "-p", directory, "-c", config, "-e", directory / "start.log"]
    process = bench.keeper.start("nginx", argv, bench.cores.load, cwd=directory,
                                 log=directory / "front.log")
    for port in ports:
        wait_listening(process, port)
    return process, ports


def behind(connections):
    """CPU time of the application behind an nginx, for each request: that of Forebay, which answers
    a page of its own, and that of php-fpm, which answers one of PHP's."""
    def run(bench, result, names):
        return _behind(bench, result, names, connections)
    return run


def _behind(bench, result, names, connections):
    if not {"forebay", "nginx"} <= bench.binaries.keys():
        raise BenchError("it takes both Forebay and nginx")
    if "forebay" not in names:
        return result
    directory = bench.work / result.name
    directory.mkdir()
    directory.chmod(0o777)
    started = []
    try:
        # Nothing else is measured, so they have the server's core; nginx is with the load.
        started.append(_as_application(bench, directory))
        started.append(php.start(bench, bench.cores.server, connections + 4))
        front, ports = _front(bench, directory, [path for _, path in started])
        started.append((front, None))
        running = []
        for label, port, (process, _) in zip(("forebay", "php-fpm"), ports, started):
            setup = Setup("php", port, directory, bench.root, 0)
            running.append(Running(Contestant(label, label), process, port, Row(label), setup))
        loads = Load([request("/hello.php", browser=True)], len("hello"), "/hello.php",
                     connections=connections)
        for one in running:
            look(one, loads.path, loads.length)
        file = bench.tools.requests(result.name, loads.requests)
        for one in running:
            measure_cpu(bench, one, loads, file, WARM_SECONDS, count_it=False)
        for one in in_turns(bench, running, bench.options.rounds):
            measure_cpu(bench, one, loads, file, bench.options.seconds)
    finally:
        for process, _ in reversed(started):
            bench.keeper.stop(process)
    for one in running:
        summarise(one.row)
        result.rows.append(one.row)
    result.notes.append(
        f"One nginx on the load's core before both, {connections} connections from the load, kept "
        "connections to the application (`fastcgi_keep_conn on`); php-fpm has "
        f"{connections + 4} processes.")
    return result


# ---- running them ----------------------------------------------------------------------------


def _wall(bench, one, file, load, seconds, **options):
    """One run of a load: notes the time per request; returns the load's report."""
    report = load(one.port, file, seconds, **options)
    one.process.check()
    if not report["answers"]:
        raise BenchError(f"no request was answered: {report['errors']}")
    one.row.blame(report)
    one.row.values.append(report["seconds"] / report["answers"] * 1e6)
    one.row.extra.setdefault("rate", []).append(report["answers"] / report["seconds"])
    return report


def against_cgi(bench, result, names):
    """A script of PHP by processes that are there already, and by one that is started for it."""
    if "forebay" not in names:
        return result
    if not os.access(PHP_CGI, os.X_OK):
        raise BenchError("php-cgi is not installed (apt install php-cgi)")
    programs = bench.work / "programs"
    programs.mkdir()
    script = programs / "hello.php"
    script.write_text(f"#!{PHP_CGI} -n\n{php.HELLO}")
    script.chmod(0o755)
    (bench.root / "hello.php").write_text(php.HELLO)
    own = f"""processes "php" {{ "{PHP_CGI}", "-n", protocol = "fastcgi", count = 4,
                              env = {{ PHP_FCGI_MAX_REQUESTS = "0" }} }}"""
    # Without this php-cgi refuses to believe that a server has started it.
    env = 'env = { REDIRECT_STATUS = "200" }'
    contestants = [
        Contestant("processes", "forebay",
                   sites=f'site {{ "*", fastcgi({own}) {{ root = "{bench.root}" }} }}'),
        Contestant("cgi", "forebay", sites=f'site {{ "*", cgi "{programs}" {{ {env} }} }}'),
    ]
    running = bench.start_all(contestants, 0)
    try:
        running = leave_out_wrong(bench, running, "/hello.php", len("hello"))
        file = bench.tools.requests(result.name, [request("/hello.php", browser=True)])
        for one in running:
            bench.tools.load(one.port, file, WARM_SECONDS, c=8)
        for one in in_turns(bench, running, bench.options.rounds):
            _wall(bench, one, file, bench.tools.load, bench.options.seconds, c=8, l=len("hello"))
    finally:
        bench.stop(running)
    for one in running:
        summarise(one.row)
        result.rows.append(one.row)
    if len(running) == 2:
        own, cgi = (one.row.extra["rate"] for one in running)
        result.figures["processes: requests/s, times those of cgi"] = own / cgi
    result.notes.append(
        "Time, not CPU time, by 8 connections; server, helper and PHP share the server's core. PHP "
        "without settings (`-n`); 4 processes, each replaced after 1,000 requests.")
    return result


PACE = 12_000
THREADS, CONNECTIONS = 4, 100


def trivial(bench, result, names):
    """A program that does next to nothing, by own processes: as fast as can be, and at a pace."""
    if "forebay" not in names:
        return result
    cores = bench.cores.all
    handler = f'"{bench.work}/handler", "hello"'
    contestants = [
        Contestant(protocol, "forebay", workers=len(cores), cores=cores, sites=(
            f'site {{ "*", {step}(processes "app" {{ {handler}, protocol = "{protocol}" }}) }}'))
        for protocol, step in (("fastcgi", "fastcgi"), ("http", "proxy"))
    ]
    running = bench.start_all(contestants, 0)
    paced = {one.row.label: [] for one in running}
    connecting = {one.row.label: [] for one in running}
    whole = {"c": CONNECTIONS, "threads": THREADS, "cores": cores, "l": len("hello")}
    try:
        running = leave_out_wrong(bench, running, "/", len("hello"))
        file = bench.tools.requests(result.name, [request("/")])
        closing = bench.tools.requests(f"{result.name}-new", [request("/", close=True)])
        for one in running:
            bench.tools.by_wrk(one.port, file, 1, **whole)
        for one in in_turns(bench, running, bench.options.rounds):
            report = _wall(bench, one, file, bench.tools.by_wrk, bench.options.seconds, **whole)
            for name, value in report["latency"].items():
                one.row.extra.setdefault(name, []).append(value * 1e3)
            # What a new client waits for, while others are served at the pace.
            seconds = max(2.0, bench.options.seconds)
            others = bench.tools.start_load(one.port, file, d=seconds, c=CONNECTIONS, r=PACE,
                                            l=len("hello"), cores=cores)
            new = bench.tools.start_load(one.port, closing, d=seconds, c=1, k=True, r=200,
                                         l=len("hello"), cores=cores)
            reports = [bench.tools.finish_load(load, seconds + 60) for load in (others, new)]
            one.row.blame(*reports)
            paced[one.row.label].append(reports[0]["histogram"])
            connecting[one.row.label].append(reports[1]["connecting"])
    finally:
        bench.stop(running)
    for one in running:
        summarise(one.row)
        result.rows.append(one.row)
    result.figures.update(_trivial_figures(running, paced, connecting))
    result.notes.append(
        f"Time, not CPU time. `wrk -t{THREADS} -c{CONNECTIONS}`, which asks again as soon as it is "
        f"answered: its latency is {CONNECTIONS} connections divided by the requests/s, whatever "
        f"the server does. So what a request takes is measured at a pace, too: {PACE:,} a second "
        f"over {CONNECTIONS} kept connections; and beside that, how long connecting takes, 200 times a "
        f"second. Nothing is pinned: {len(cores)} workers, at most {2 * len(cores)} processes and "
        f"the load share {len(cores)} cores. Latencies in ms; of rounds the best one.")
    return result


def _trivial_figures(running, paced, connecting):
    """The worse of both protocols, each by its best round: disturbances only add."""
    rates, figures = [one.row.extra["rate"] for one in running], {}
    figures["requests/s"] = min(rates)

    def worst(kept, share):
        return max(min(quantile(round_, share) for round_ in kept[one.row.label])
                   for one in running) * 1e3

    figures["connecting, p50, ms"] = worst(connecting, 0.5)
    figures["connecting, p99, ms"] = worst(connecting, 0.99)
    for one in running:
        label = f"{one.row.label}: at {PACE:,} requests/s"
        whole = merge(paced[one.row.label])
        figures[f"{label}, mean of all rounds, ms"] = (
            sum(low * count for low, count in whole) / sum(count for _, count in whole) / 1e6)
    figures[f"p50 at {PACE:,} requests/s, ms"] = worst(paced, 0.5)
    figures[f"p99 at {PACE:,} requests/s, ms"] = worst(paced, 0.99)
    return figures


def by_cgi(bench, result, names):
    """What a program of CGI costs, against starting it as often by nothing but a loop."""
    if "forebay" not in names:
        return result
    programs = bench.work / "programs-hello"
    programs.mkdir()
    os.link(bench.work / "hello", programs / "hello")
    sites = f'site {{ "*", cgi "{programs}" }}'
    [one] = bench.start_all([Contestant("forebay", "forebay", sites=sites)], 0)
    seconds = max(2.0, bench.options.seconds)
    count = int(seconds * 3000)
    rows = {kind: Row(kind) for kind in ("vfork", "fork")}
    try:
        look(one, "/hello", len("hello"))
        file = bench.tools.requests(result.name, [request("/hello")])
        bench.tools.load(one.port, file, WARM_SECONDS, c=4)
        helper = [pid for pid in one.process.pids() if pid != one.process.pid]
        memory = max(anonymous_kib(pid) for pid in helper)
        kinds = ["forebay", *rows]
        for number in range(bench.options.rounds):
            for place in range(len(kinds)):
                kind = kinds[(number + place) % len(kinds)]
                if kind == "forebay":
                    _cgi_round(bench, one, file, seconds)
                else:
                    _spawn_round(bench, rows[kind], count, memory, programs / "hello")
    finally:
        bench.stop([one])
    for row in (one.row, *rows.values()):
        summarise(row)
        result.rows.append(row)
    result.notes.append(
        "CPU time of everything: of server, helper and programs, asked by 4 connections; of a loop "
        "that starts the same program (static, without a library), reads what it says and waits "
        f"for its end, and of the programs. The loop has as much memory as the helper, "
        f"{memory} KiB; `fork` copies its page tables, `vfork` borrows them, as posix_spawn and the helper do.")
    return result


def _cgi_round(bench, one, file, seconds):
    pids = one.process.pids()
    used = cpu_seconds(pids) + cpu_seconds_of_ended(pids)
    report = bench.tools.load(one.port, file, seconds, c=4, l=len("hello"))
    time.sleep(0.05)  # The last program is still to be waited for.
    used = cpu_seconds(pids) + cpu_seconds_of_ended(pids) - used
    one.process.check()
    one.row.blame(report)
    one.row.values.append(used / report["answers"] * 1e6)
    one.row.extra.setdefault("rate", []).append(report["answers"] / report["seconds"])


def _spawn_round(bench, row, count, memory, program):
    """One run of the loop, on the server's core."""
    process = bench.keeper.start(
        "spawn", [bench.work / "spawn", count, memory, row.label, program,
                  "PATH=/usr/bin:/bin", "REQUEST_METHOD=GET"],
        bench.cores.server, pipes=True, log=bench.work / "spawn.log")
    try:
        out, _ = process.popen.communicate(timeout=120)
        if process.popen.returncode:
            raise BenchError(f"spawn failed: {process.tail()}")
    finally:
        bench.keeper.stop(process)
    report = json.loads(out)
    row.values.append(report["cpu"] / report["answers"] * 1e6)
    row.extra.setdefault("rate", []).append(report["answers"] / report["seconds"])
