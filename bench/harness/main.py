"""The command line: chooses cases and servers, prepares the machine, runs, reports."""

import argparse
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from . import report, servers
from .cases import CASES
from .model import Cores, Options
from .procs import BenchError, Keeper
from .runners import Bench
from .tools import Tools

HERE = Path(__file__).resolve().parent.parent


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measures Forebay and its rivals side by side: server CPU per request, "
                    "memory, latency. Everything stays on the loopback.")
    parser.add_argument("--forebay", default=HERE.parent / "target/release/forebay",
                        metavar="PATH", help="its binary (target/release/forebay)")
    parser.add_argument("--case", nargs="+", default=[], metavar="NAME",
                        help="only these cases; patterns as 'proxy-*' are understood")
    parser.add_argument("--server", nargs="+", default=[], metavar="NAME",
                        choices=list(servers.SERVERS), help="only these servers")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds per case (5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="load per round (1)")
    parser.add_argument("--connections", type=int, default=64, metavar="N",
                        help="connections of the load (64)")
    parser.add_argument("--quick", action="store_true",
                        help="a look in few minutes: 2 short rounds, smaller counts; no evidence")
    parser.add_argument("--long", action="store_true",
                        help="the cases that take many minutes, too")
    parser.add_argument("--wrk", action="store_true",
                        help="load by wrk where it can, to check our own load generator")
    parser.add_argument("--name", help="name of the results (the host's); with --quick nothing is "
                                       "written unless it is given")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR",
                        help="where results are written (bench/results)")
    parser.add_argument("--server-core", type=int, metavar="N", help="the server's core (first)")
    parser.add_argument("--load-core", type=int, metavar="N", help="the load's core (second)")
    parser.add_argument("--origin-core", type=int, metavar="N",
                        help="the origins' core (the load's)")
    parser.add_argument("--list", action="store_true", help="the cases and servers, and end")
    args = parser.parse_args(argv)
    if (args.rounds or 1) < 1 or (args.seconds or 1) <= 0 or args.connections < 1:
        parser.error("--rounds, --seconds and --connections must be positive")
    return args


def choose_cases(args):
    chosen = [case for case in CASES
              if any(fnmatchcase(case.name, pattern) for pattern in args.case)
              or (not args.case and (args.long or not case.long))]
    unknown = [pattern for pattern in args.case
               if not any(fnmatchcase(case.name, pattern) for case in CASES)]
    if unknown:
        raise BenchError(f"no case is named {', '.join(unknown)}; --list shows them")
    return chosen


def choose_cores(args):
    cores = sorted(os.sched_getaffinity(0))
    server = cores[0] if args.server_core is None else args.server_core
    load = cores[min(1, len(cores) - 1)] if args.load_core is None else args.load_core
    origin = load if args.origin_core is None else args.origin_core
    for core in (server, load, origin):
        if core not in cores:
            raise BenchError(f"core {core} is not among those this program may use: {cores}")
    return Cores({server}, {load}, {origin}, set(cores))


def choose_options(args):
    options = Options(connections=args.connections, quick=args.quick)
    if args.quick:
        options = Options(2, 0.3, args.connections, True, 200, 2000, 200, 20_000)
    options.rounds = args.rounds or options.rounds
    options.seconds = args.seconds or options.seconds
    return options


def prepare_limits(say, options):
    """Raises what a process may have open; smaller counts where the machine forbids more."""
    wanted = 65_536
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            hard = wanted
        except (ValueError, PermissionError):
            pass
    hard = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard - 1500 < options.idle:
        options.idle = hard - 1500
        say(f"only {options.idle} idle connections: {hard} open files are allowed")
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    if options.files == 1000 and free < 4 << 20:
        options.files = 200
        say("200 files in place of 1,000: less than 4 GiB of memory are free")


def warn_if_noisy(say):
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"the machine is not idle (load average {load:.1f}): compare ratios, not figures")


def git_revision():
    """The commit this was measured at; `+` says that files differ from it."""
    done = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty=+"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip()


def print_list():
    for case in CASES:
        print(f"{case.name:24} {case.title}{' (--long)' if case.long else ''}")
    print("\nservers: " + " ".join(servers.SERVERS))


def say(text):
    print(text, flush=True)


def measure(bench, cases, chosen):
    """Runs the cases one after the other; a case that fails is named and the others go on."""
    results = []
    for number, case in enumerate(cases, 1):
        began = time.monotonic()
        say(f"\n[{number}/{len(cases)}] {case.name}: {case.title}")
        try:
            result = case.measure(bench, chosen)
        except BenchError as error:
            say(f"  this case ended early: {error}")
            bench.keeper.stop_all()
            continue
        results.append(result)
        say(report.text(result))
        say(f"  ({time.monotonic() - began:.0f} s)")
    return results


def run(args, keeper, work):
    cases, cores, options = choose_cases(args), choose_cores(args), choose_options(args)
    # Servers that are another user must reach the files.
    work.chmod(0o755)
    prepare_limits(say, options)
    warn_if_noisy(say)
    os.sched_setaffinity(0, cores.load)
    if args.wrk and not shutil.which("wrk"):
        raise BenchError("wrk is not installed (apt install wrk)")
    tools = Tools(keeper, work, cores, wrk=args.wrk)
    binaries, missing = servers.find(args.forebay, work)
    for sentence in missing:
        say(sentence)
    bench = Bench(keeper, tools, binaries, cores, options, work, say)
    names = [name for name in binaries if not args.server or name in args.server]
    meta = {
        "name": args.name or re.sub(r"[^\w.-]", "-", platform.node()) or "local",
        "date": report.today(),
        "machine": report.machine(),
        "versions": {name: servers.version(name, binaries[name]) for name in names
                     if name in servers.VERSION_ARGS},
        "revision": git_revision(),
        "cores": {"server": min(cores.server), "load": min(cores.load),
                  "origin": min(cores.origin)},
        "options": asdict(options),
        "load": "wrk" if args.wrk else "bench/tools/load.c",
    }
    m = meta["machine"]
    say(f"{m['cpu']}, {m['cores']} cores, Linux {m['kernel']}")
    say(", ".join(f"{name} {version}" for name, version in meta["versions"].items()))
    results = measure(bench, cases, args.server)
    if results and (args.name or not args.quick):
        say(f"\nwritten: {report.write(args.out, meta, results)}")


def main(argv=None):
    args = parse(argv)
    if args.list:
        print_list()
        return 0

    def interrupted(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGINT, interrupted)  # even where a shell has it ignored
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    keeper = Keeper()
    try:
        with tempfile.TemporaryDirectory(prefix="forebay-bench-",
                                         ignore_cleanup_errors=True) as work:
            try:
                run(args, keeper, Path(work))
            finally:
                # A second Ctrl-C must not leave servers behind.
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                keeper.stop_all()
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    except BenchError as error:
        print(f"bench/run: {error}", file=sys.stderr)
        return 1
    return 0
