"""How the cases measure that are about a cache's disk: misses, written; hits, read."""

import ctypes
import mmap
import os
import random
import time
from pathlib import Path

from .procs import BenchError, cpu_seconds
from .runners import SIZES, ask_each, asked_of_origin, in_turns, leave_out_wrong, summarise
from .tools import quantile, request

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
PAGE = mmap.PAGESIZE
RESIDENT_LIMIT = 0.01
CALM_SECONDS = 30
MOST_FILLS = 20
MISS_PACE = 15_000  # a second: all is to be written, also by who would rather serve than write
PACE = 4000        # likewise, where latency is measured: no server waits for itself
FILL_RATE = 3000   # a second: what comes faster than a disk writes is not kept


def _files(directory):
    """Every file below a directory."""
    for base, _, names in os.walk(directory):
        for name in names:
            yield Path(base) / name


def allocated_bytes(directory):
    """What the files below a directory take of the disk; holes are not counted."""
    return sum(path.stat().st_blocks * 512 for path in _files(directory))


def _resident_pages(fd, size):
    """How many pages of a file are in the kernel's memory, by mincore."""
    pages = -(-size // PAGE)
    at = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if at == ctypes.c_void_p(-1).value:
        raise BenchError(f"mmap: {os.strerror(ctypes.get_errno())}")
    try:
        seen = ctypes.create_string_buffer(pages)
        if LIBC.mincore(at, size, seen):
            raise BenchError(f"mincore: {os.strerror(ctypes.get_errno())}")
        return sum(byte & 1 for byte in seen.raw[:pages])
    finally:
        LIBC.munmap(at, size)


def forget_pages(directory):
    """Has the kernel write and forget these files; the share of their pages that is still there."""
    resident = pages = 0
    for path in _files(directory):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                continue
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            resident += _resident_pages(file.fileno(), size)
            pages += -(-size // PAGE)
    return resident / pages if pages else 0.0


def calm(pids):
    """Waits until a server has done what it had put off: it uses next to nothing of a core."""
    end = time.monotonic() + CALM_SECONDS
    while time.monotonic() < end:
        used = cpu_seconds(pids)
        time.sleep(0.3)
        if cpu_seconds(pids) - used < 0.003:
            return


def _measure(bench, one, file, count, first, length, rate=None):
    """So many requests in order; the server's CPU time until all is done that they have caused.
    Returns how many of them the origin was asked."""
    pids = one.process.pids()
    reached, used = asked_of_origin(one.setup.origin_port), cpu_seconds(pids)
    report = bench.tools.load(one.port, file, 600, n=count, o=str(first), l=length,
                              c=bench.options.connections, r=rate)
    calm(pids)
    used = cpu_seconds(pids) - used
    one.process.check()
    if not report["answers"]:
        raise BenchError(f"no request was answered: {report['errors']}")
    one.row.blame(report)
    row = one.row
    row.values.append(used / report["answers"] * 1e6)
    row.extra.setdefault("rate", []).append(report["answers"] / report["seconds"])
    return asked_of_origin(one.setup.origin_port) - reached


def _fill(bench, one, requests, name, length):
    """Asks for everything until the origin is asked for nothing more: a disk that is slower than
    the origin may leave out some."""
    for _ in range(MOST_FILLS):
        reached = asked_of_origin(one.setup.origin_port)
        ask_each(bench, one, requests, name, length, rate=FILL_RATE)
        calm(one.process.pids())
        if asked_of_origin(one.setup.origin_port) == reached:
            return
    raise BenchError(f"{one.row.label} does not keep everything")


def misses(bench, result, contestants, size):
    """CPU time per miss, of URLs that are all different and are kept on disk.

    What reached the disk is proved twice: by what its files take, and by what is still answered
    without the origin when the server has been started anew.
    """
    rounds, each = bench.options.rounds, 2_000 if bench.options.quick else 20_000
    requests = [request(f"/{i:06}/{size}.bin") for i in range(each * (rounds + 1))]
    sample = random.Random(1).sample(requests, 1_000)
    origin_process, origin_port = bench.tools.origin(max_age=86400)
    running = bench.start_all(contestants, origin_port)
    try:
        running = leave_out_wrong(bench, running, f"/{size}.bin", SIZES[size])
        file = bench.tools.requests(result.name, requests)
        for one in running:
            ask_each(bench, one, requests[:each], result.name, SIZES[size], rate=MISS_PACE)
        for number, one in enumerate(in_turns(bench, running, rounds)):
            first = each * (1 + number // len(running))
            asked = _measure(bench, one, file, each, first, SIZES[size], rate=MISS_PACE)
            one.row.blame({"errors": {"hit": each - asked}})
        for one in running:
            bench.keeper.stop(one.process)
            os.sync()
            one.row.extra["on disk"] = allocated_bytes(one.setup.shelf) / len(requests)
            bench.restart(one)
            reached = asked_of_origin(origin_port)
            ask_each(bench, one, sample, result.name, SIZES[size])
            missed = asked_of_origin(origin_port) - reached
            one.row.extra["kept"] = 1 - missed / len(sample)
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    for one in running:
        summarise(one.row)
        result.rows.append(one.row)
        result.figures[f"{one.row.label}: on disk of each object, bytes"] = one.row.extra["on disk"]
        result.figures[f"{one.row.label}: not kept over a restart"] = 1 - one.row.extra["kept"]
    result.notes.append(
        f"{each} URLs in each round, each asked for once, {MISS_PACE:,} a second; CPU time up to "
        "when the server is idle again; kept: what 1,000 of all, drawn at random, were answered "
        "without the origin after a restart.")
    return result


def _forget(one, count):
    """Has the kernel forget what the server keeps; where it does not, what follows is blamed."""
    resident = forget_pages(one.setup.shelf)
    one.row.extra["resident"] = max(resident, one.row.extra.get("resident", 0))
    if resident >= RESIDENT_LIMIT:
        one.row.blame({"errors": {"resident": count}})


def from_disk(bench, result, contestants, size):
    """CPU time and latency of hits whose bytes are on the disk alone."""
    count = 400 if bench.options.quick else 4_000
    requests = [request(f"/{i:06}/{size}.bin", browser=True) for i in range(count)]
    random.Random(1).shuffle(requests)
    origin_process, origin_port = bench.tools.origin(max_age=86400)
    running = bench.start_all(contestants, origin_port)
    paced = {}
    try:
        running = leave_out_wrong(bench, running, f"/{size}.bin", SIZES[size])
        file = bench.tools.requests(result.name, requests)
        for one in list(running):
            try:
                _fill(bench, one, requests, result.name, SIZES[size])
            except BenchError as error:
                bench.say(f"  {one.row.label} is left out: {error}")
                running.remove(one)
                bench.keeper.stop(one.process)
        for one in in_turns(bench, running, bench.options.rounds):
            _forget(one, count)
            asked = _measure(bench, one, file, count, 0, SIZES[size])
            _forget(one, count)
            report = bench.tools.load(one.port, file, 600, n=count, o="0", l=SIZES[size],
                                      c=bench.options.connections, r=PACE)
            one.row.blame(report, {"errors": {"missed": asked}})
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                paced.setdefault((one.row.label, name), []).append(
                    quantile(report["histogram"], share) * 1e3)
    finally:
        bench.stop(running)
        bench.keeper.stop(origin_process)
    for one in running:
        summarise(one.row)
        for name in ("p50", "p99"):
            one.row.extra[name] = min(paced[one.row.label, name])
        result.rows.append(one.row)
        result.figures[f"{one.row.label}: p99, ms"] = one.row.extra["p99"]
    for label in ("nginx", "nginx-aio"):
        ours, theirs = (result.figures.get(f"{name}: p99, ms") for name in ("forebay", label))
        if ours and theirs:
            result.figures[f"forebay: p99, times that of {label}"] = ours / theirs
    result.notes.append(
        f"{count} objects, each asked for twice in each round, in an order that is not that of the "
        "disk: as fast as can be, which gives the CPU time, and at a pace that all can keep, "
        f"{PACE:,} a second, which gives p50 and p99 in ms, the least of all rounds. Before each "
        "time the kernel forgets them, which is checked by mincore.")
    return result
