"""The load generator, the origin and wrk: building and running them."""

import json
import os
import random
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

from .procs import BenchError

TOOLS = Path(__file__).resolve().parent.parent / "tools"
ORIGIN_START_SECONDS = 10

HOST = "bench.example"

# What a browser sends today for a page's image: 15 fields, about 800 bytes in all.
BROWSER_FIELDS = (
    "Connection: keep-alive\r\n"
    'sec-ch-ua: "Chromium";v="136", "Google Chrome";v="136", "Not.A/Brand";v="99"\r\n'
    "sec-ch-ua-mobile: ?0\r\n"
    'sec-ch-ua-platform: "Linux"\r\n'
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/136.0.0.0 Safari/537.36\r\n"
    "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\r\n"
    "DNT: 1\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: no-cors\r\n"
    "Sec-Fetch-Dest: image\r\n"
    "Referer: https://bench.example/articles/2025/11/a-walk-along-the-reservoir.html\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7\r\n"
    "Cookie: _ga=GA1.1.1822479551.1746012345; session_hint=light; "
    "_ga_4XQ2M1T0ZP=GS1.1.1746012345.3.1.1746013999.0.0.0; consent=analytics.none; theme=dark\r\n"
)


def request(path, *, host=HOST, browser=False, close=False):
    """The bytes of a GET request: Host alone, or the fields that a browser sends."""
    fields = BROWSER_FIELDS if browser else ""
    if close:
        fields = fields.replace("Connection: keep-alive\r\n", "") + "Connection: close\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode("ascii")


def build(into):
    """Compiles the C tools into a directory."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise BenchError("no C compiler was found: install the Debian package `gcc`")
    for name in ("load", "origin", "handler", "spawn", "hello"):
        # What starts `hello` is measured, not its loader.
        libraries = ["-static"] if name == "hello" else ["-lm"]
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-o", into / name, TOOLS / f"{name}.c", *libraries],
            capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{name}.c does not compile: {done.stderr.strip()}")


class Ports:
    """Hands out loopback ports below those that the kernel gives to outgoing connections."""

    def __init__(self):
        self.given = set()

    def take(self):
        for _ in range(200):
            port = random.randrange(15000, 30000)
            if port in self.given:
                continue
            with socket.socket() as probe:
                # As the servers will do: an address in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            self.given.add(port)
            return port
        raise BenchError("no free port was found between 15000 and 30000")


def wait_listening(process, port, seconds=ORIGIN_START_SECONDS):
    """Waits until the port takes connections; returns how long that took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        process.check()
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return time.monotonic() - began
        time.sleep(0.002)
    raise BenchError(f"{process.name} does not listen after {seconds} s: {process.tail()}")


class Tools:
    """Runs the load generator and origins, on the cores given to them."""

    def __init__(self, keeper, work, cores, *, wrk=False):
        self.keeper = keeper
        self.work = work
        self.cores = cores
        self.wrk = wrk
        self.ports = Ports()
        build(work)

    def origin(self, *, max_age=None, cores=None):
        """Starts an origin; returns it and its port."""
        port = self.ports.take()
        argv = [self.work / "origin", "-p", port]
        if max_age:
            argv += ["-m", max_age]
        process = self.keeper.start("origin", argv, cores or self.cores.origin,
                                    log=self.work / "origin.log")
        wait_listening(process, port)
        return process, port

    def requests(self, name, requests):
        """Writes a file of requests for the load generator."""
        path = self.work / f"{name}.requests"
        path.write_bytes(b"".join(struct.pack("=I", len(r)) + r for r in requests))
        return path

    def start_load(self, port, requests, *, cores=None, priority=False, **options):
        """Starts the load generator; its options are those of load.c, by their letters."""
        argv = [self.work / "load", "-p", port, "-f", requests]
        for letter, value in options.items():
            if value is True:
                argv.append(f"-{letter}")
            elif value is not None and value is not False:
                argv += [f"-{letter}", value]
        return self.keeper.start("load", argv, cores or self.cores.load, pipes=True,
                                 priority=priority, log=self.work / "load.log")

    def finish_load(self, process, seconds):
        """Waits for the load's end and returns its report."""
        try:
            # "ready" of the modes that announce it may still stand before the report.
            out, _ = process.popen.communicate(input="\n", timeout=seconds)
        except subprocess.TimeoutExpired as late:
            raise BenchError(f"load did not end within {seconds} s") from late
        finally:
            self.keeper.stop(process)
        lines = out.strip().splitlines()
        if process.popen.returncode or not lines:
            raise BenchError(f"load failed: {process.tail()}")
        return json.loads(lines[-1])

    def load(self, port, requests, seconds, **options):
        """Runs the load for some seconds, or to a count; returns its report."""
        if self.wrk and not options.get("k") and not options.get("n"):
            return self.by_wrk(port, requests, seconds, **options)
        limit = 600 if options.get("n") else seconds + 60
        return self.finish_load(self.start_load(port, requests, d=seconds, **options), limit)

    def by_wrk(self, port, requests, seconds, *, c=64, P=1, cores=None, threads=1, **_):
        """The same load by wrk: it reads chunks, and shows that our own generator favours nobody."""
        if not shutil.which("wrk"):
            raise BenchError("wrk is not installed (apt install wrk)")
        report = self.work / "wrk.json"
        process = self.keeper.start(
            "wrk",
            ["wrk", f"-t{threads}", f"-c{c}", f"-d{max(1, round(seconds))}s", "-s", TOOLS / "wrk.lua",
             f"http://127.0.0.1:{port}/"],
            cores or self.cores.load, log=self.work / "wrk.log",
            env={"BENCH_REQUESTS": str(requests), "BENCH_DEPTH": str(P),
                 "BENCH_REPORT": str(report)})
        try:
            process.popen.wait(seconds + 60)
            if process.popen.returncode:
                raise BenchError(f"wrk failed: {process.tail()}")
        finally:
            self.keeper.stop(process)
        return {**json.loads(report.read_text()), "histogram": [], "latency_sum_ns": 0}


def wait_ready(process, seconds):
    """Waits for the load's "ready" line."""
    os.set_blocking(process.popen.stdout.fileno(), False)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            process.check()
            if process.popen.stdout.readline().strip() == "ready":
                return
            time.sleep(0.01)
    finally:
        os.set_blocking(process.popen.stdout.fileno(), True)
    raise BenchError(f"load was not ready after {seconds} s")


def quantile(histogram, share):
    """The latency below which this share of the requests lies, in seconds."""
    total = sum(count for _, count in histogram)
    seen = 0
    for low, count in histogram:
        seen += count
        if seen >= share * total:
            return low / 1e9
    return 0.0


def merge(histograms):
    """One histogram out of several."""
    merged = {}
    for histogram in histograms:
        for low, count in histogram:
            merged[low] = merged.get(low, 0) + count
    return sorted(merged.items())
