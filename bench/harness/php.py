"""php-fpm behind the servers, as Debian delivers it: its own CPU time is not theirs."""

import glob
import os
import socket
import time

from .procs import BenchError

PROCESSES = 8
HELLO = '<?php header("Content-Length: 5"); echo "hello";'
START_SECONDS = 10


def start(bench, cores=None, count=PROCESSES):
    """Starts php-fpm with a page that says hello; returns it and its socket."""
    programs = sorted(glob.glob("/usr/sbin/php-fpm*"))
    if not programs:
        raise BenchError("php-fpm is not installed (apt install php-fpm)")
    (bench.root / "hello.php").write_text(HELLO)
    path, config = bench.work / "php.sock", bench.work / "php-fpm.conf"
    user = "user = root\ngroup = root\n" if os.geteuid() == 0 else ""
    config.write_text(f"""\
[global]
error_log = {bench.work}/php-fpm.log
[bench]
listen = {path}
listen.mode = 0666
{user}pm = static
pm.max_children = {count}
""")
    argv = [programs[-1], "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", config]
    process = bench.keeper.start("php-fpm", argv, cores or bench.cores.origin,
                                   log=bench.work / "php.log")
    end = time.monotonic() + START_SECONDS
    while not _listens(path):
        process.check()
        if time.monotonic() > end:
            raise BenchError("php-fpm does not listen")
        time.sleep(0.01)
    return process, path


def _listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            return True
        except OSError:
            return False
